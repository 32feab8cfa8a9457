/* The least that fan-out costs on this machine: receive a producer's packets, give each of N peers its own copy.

   floor MODE CRYPT PEERS SECONDS SERVER_CPU OTHER_CPU
     MODE   one: sendto; many: sendmmsg; 8, 33: sendmmsg with UDP_SEGMENT in runs of so many
     CRYPT  0: bare; 1: SRTP AES-128-GCM, unprotected once and protected for every peer
   The child is the producer (30 bursts of 33 packets of 1200 bytes a second) and the peers, on OTHER_CPU.
   For each half second: "window <CPU ns> <packets out>"; at the end "total <user µs> <system µs> <out> <delivered>". */
#define _GNU_SOURCE
#include <arpa/inet.h>
#include <errno.h>
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "srtp_gcm.h"

#define SIZE 1200
#define HEADER 12
#define RUN 33
#define PER_SECOND 30
#define SLOT (SIZE + TAG)
#define QUEUE (8 << 20)
#define MAX_PEERS 1000

static int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

static void fail(const char *what) {
    perror(what);
    exit(1);
}

static void pin(int cpu) {
    cpu_set_t set;
    CPU_ZERO(&set);
    CPU_SET(cpu, &set);
    if (sched_setaffinity(0, sizeof set, &set)) fail("sched_setaffinity");
}

static int open_socket(struct sockaddr_in *name) {
    int fd = socket(AF_INET, SOCK_DGRAM | SOCK_NONBLOCK, 0), queue = QUEUE;
    socklen_t length = sizeof *name;
    *name = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    if (fd < 0 || bind(fd, (void *)name, length) || getsockname(fd, (void *)name, &length)) fail("socket");
    if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &queue, sizeof queue))
        setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &queue, sizeof queue);
    if (setsockopt(fd, SOL_SOCKET, SO_SNDBUFFORCE, &queue, sizeof queue))
        setsockopt(fd, SOL_SOCKET, SO_SNDBUF, &queue, sizeof queue);
    return fd;
}

static uint8_t slots[64][2048], arena[64 * RUN * SLOT];
static struct iovec vectors[64], out_vectors[64 * RUN];
static struct mmsghdr messages[64], out[64 * RUN];
static char controls[64 * RUN][CMSG_SPACE(sizeof(uint16_t))];
static const uint8_t KEY[16] = "0123456789abcdef", SALT[12] = "0123456789ab";

static int receive(int fd) {
    for (int i = 0; i < 64; i++) {
        vectors[i] = (struct iovec){slots[i], sizeof slots[i]};
        messages[i].msg_hdr = (struct msghdr){.msg_iov = &vectors[i], .msg_iovlen = 1};
    }
    return recvmmsg(fd, messages, 64, MSG_DONTWAIT, 0);
}

/* The producer and the peers, until killed; the count received goes to `report` when SIGTERM comes. */
static volatile sig_atomic_t over;
static void on_term(int signal) { (void)signal; over = 1; }

static void be_others(int producer, struct sockaddr_in server, int *peers, int count, int crypt, int report) {
    struct sigaction action = {.sa_handler = on_term};
    sigaction(SIGTERM, &action, 0);
    uint64_t received = 0;
    uint16_t number = 0;
    srtp_t srtp = {0};
    if (crypt && srtp_open(&srtp, KEY, SALT, 1)) exit(1);
    int epoll = epoll_create1(0);
    for (int i = 0; i < count; i++) {
        struct epoll_event event = {.events = EPOLLIN, .data.fd = peers[i]};
        epoll_ctl(epoll, EPOLL_CTL_ADD, peers[i], &event);
    }
    int64_t due = clock_ns(CLOCK_MONOTONIC), drain = due;
    while (!over) {
        int64_t now = clock_ns(CLOCK_MONOTONIC), next = due < drain ? due : drain;
        if (next > now) {
            struct timespec t = {next / 1000000000, next % 1000000000};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
            continue;
        }
        if (now >= due) {
            due += 1000000000 / PER_SECOND;
            for (int i = 0; i < RUN; i++) {
                uint8_t packet[SLOT] = {0x80, 96};
                put16(packet + 2, number++);
                int size = SIZE;
                if (crypt) size = srtp_protect(&srtp, packet, HEADER, SIZE, 0);
                sendto(producer, packet, size, 0, (void *)&server, sizeof server);
            }
        }
        if (now >= drain) {
            struct epoll_event events[64];
            int ready = epoll_wait(epoll, events, 64, 0);
            for (int i = 0; i < ready; i++)
                for (int n = 64; n == 64;)
                    if ((n = receive(events[i].data.fd)) > 0) received += n;
            if (ready < 64) drain = now + 3000000;
        }
    }
    usleep(100000);
    for (int i = 0; i < count; i++)
        for (int n = 64; n == 64;)
            if ((n = receive(peers[i])) > 0) received += n;
    if (write(report, &received, sizeof received) < 0) exit(1);
    exit(0);
}

static int queued;
static void flush(int fd) {
    for (int done = 0; done < queued;) {
        int n = sendmmsg(fd, out + done, queued - done, 0);
        if (n < 0 && errno != EINTR) done++; /* refused: lost, as any packet may be */
        if (n > 0) done += n;
    }
    queued = 0;
}

int main(int argc, char **argv) {
    if (argc != 7) return 2;
    int run = atoi(argv[1]), crypt = atoi(argv[2]), count = atoi(argv[3]);
    int single = argv[1][0] == 'o';
    double seconds = atof(argv[4]);
    if (count < 1 || count > MAX_PEERS) return 2;
    struct sockaddr_in server, names[MAX_PEERS], producer_name;
    int fd = open_socket(&server), producer = open_socket(&producer_name), peers[MAX_PEERS], pipes[2];
    for (int i = 0; i < count; i++) peers[i] = open_socket(&names[i]);
    if (pipe(pipes)) fail("pipe");
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    pid_t child = fork();
    if (child == 0) {
        prctl(PR_SET_PDEATHSIG, SIGKILL);
        pin(atoi(argv[6]));
        be_others(producer, server, peers, count, crypt, pipes[1]);
    }
    pin(atoi(argv[5]));
    srtp_t incoming = {0}, *outgoing = calloc(count, sizeof *outgoing);
    if (crypt && srtp_open(&incoming, KEY, SALT, 0)) return 1;
    for (int i = 0; crypt && i < count; i++)
        if (srtp_open(&outgoing[i], KEY, SALT, 1)) return 1;
    uint64_t sent = 0, window_sent = 0;
    int64_t begun = clock_ns(CLOCK_MONOTONIC), window = begun, window_cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
    while (clock_ns(CLOCK_MONOTONIC) - begun < seconds * 1e9) {
        struct pollfd waited = {.fd = fd, .events = POLLIN};
        poll(&waited, 1, 100);
        int n = receive(fd);
        for (int i = 0; i < n && crypt; i++) srtp_unprotect(&incoming, slots[i], HEADER, messages[i].msg_len, 0);
        size_t used = 0;
        for (int peer = 0; n > 0 && peer < count; peer++) {
            size_t start = used;
            int size = SIZE;
            for (int i = 0; i < n; i++, used += size) {
                uint8_t *packet = arena + used;
                memcpy(packet, slots[i], SIZE);
                put32(packet + 8, 1000 + peer);
                if (crypt) size = srtp_protect(&outgoing[peer], packet, HEADER, SIZE, 0);
                if (single)
                    sendto(fd, packet, size, 0, (void *)&names[peer], sizeof names[peer]);
            }
            int each = run > 1 ? run : 1;
            for (int i = 0; i < n && !single; i += each) {
                int in_run = n - i < each ? n - i : each;
                out_vectors[queued] = (struct iovec){arena + start + (size_t)i * size, (size_t)in_run * size};
                struct msghdr *header = &out[queued].msg_hdr;
                *header = (struct msghdr){&names[peer], sizeof names[peer], &out_vectors[queued], 1, 0, 0, 0};
                if (in_run > 1) {
                    header->msg_control = controls[queued];
                    header->msg_controllen = sizeof controls[queued];
                    struct cmsghdr *control = CMSG_FIRSTHDR(header);
                    control->cmsg_level = 17;  /* SOL_UDP */
                    control->cmsg_type = 103;  /* UDP_SEGMENT */
                    control->cmsg_len = CMSG_LEN(sizeof(uint16_t));
                    *(uint16_t *)CMSG_DATA(control) = size;
                }
                queued++;
            }
            sent += n;
            if (single || used > 256 << 10 || peer == count - 1) { /* the next peer's packets still fit the cache */
                flush(fd);
                used = 0;
            }
        }
        int64_t now = clock_ns(CLOCK_MONOTONIC);
        if (now - window >= 500000000) {
            int64_t cpu = clock_ns(CLOCK_PROCESS_CPUTIME_ID);
            printf("window %lld %llu\n", (long long)(cpu - window_cpu), (unsigned long long)(sent - window_sent));
            fflush(stdout);
            window = now, window_cpu = cpu, window_sent = sent;
        }
    }
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    uint64_t received = 0;
    kill(child, SIGTERM);
    if (read(pipes[0], &received, sizeof received) != sizeof received) return 1;
    waitpid(child, 0, 0);
    printf("total %lld %lld %llu %llu\n", (long long)usage.ru_utime.tv_sec * 1000000 + usage.ru_utime.tv_usec,
           (long long)usage.ru_stime.tv_sec * 1000000 + usage.ru_stime.tv_usec, (unsigned long long)sent,
           (unsigned long long)received);
    return 0;
}
