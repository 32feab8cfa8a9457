/* A spinner that says how fast its core is: eight independent chains keep the core's execution units full, so a busy
   sibling hyper-thread shows. argv[1]: a file of two uint64, rounds done and ns of CPU time used, kept up to date. */
#define _GNU_SOURCE
#include <fcntl.h>
#include <stdint.h>
#include <sys/mman.h>
#include <sys/prctl.h>
#include <signal.h>
#include <time.h>

int main(int argc, char **argv) {
    prctl(PR_SET_PDEATHSIG, SIGKILL);
    int fd = argc > 1 ? open(argv[1], O_RDWR) : -1;
    volatile uint64_t *shared = mmap(0, 4096, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    if (fd < 0 || shared == MAP_FAILED) return 1;
    uint64_t a = 1, b = 2, c = 3, d = 4, e = 5, f = 6, g = 7, h = 8, rounds = 0;
    for (;;) {
        for (int i = 0; i < 2000; i++) {
            a = a * 3 + 1; b = b * 5 + 1; c += a ^ 77; d += b ^ 55;
            e = (e << 1) ^ 9; f = (f >> 1) + 12345; g += 7; h ^= g;
            __asm__ volatile("" : "+r"(a), "+r"(b), "+r"(c), "+r"(d), "+r"(e), "+r"(f), "+r"(g), "+r"(h));
        }
        struct timespec used;
        clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &used);
        shared[0] = ++rounds;
        shared[1] = used.tv_sec * 1000000000ull + used.tv_nsec;
    }
}
