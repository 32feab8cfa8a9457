/* The load generator's way of a packet: builds and encrypts what producers send, takes what consumers get.

   Python (bench/native.py) sets calls up, answers STUN and RTCP and reads the counters; between two of its turns
   gen_run sends what is due and drains what has come. Of what consumers get it reads the header only, and decrypts one
   packet in fifty: the tag, and the mark at the end, which says when it was sent. One thread; nothing is shared. */
#define _GNU_SOURCE
#include <errno.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#include "srtp_gcm.h"

/* cdef: what follows, to the end mark, is read by native.py too. */
typedef struct {
    uint32_t ssrc;
    uint32_t cycles;       /* of `expected`: the rollover counter */
    uint16_t expected;     /* the sequence number after the highest */
    uint16_t started;
    uint32_t missing_count;
    uint16_t missing[128];
    uint64_t delivered;
    uint64_t gaps;         /* numbers skipped, less those that came late */
    uint64_t duplicates;
    uint32_t timestamp;    /* of the frame that comes */
    uint32_t in_frame;     /* its packets so far */
    uint32_t ended;
    uint32_t whole;        /* the least packets of a frame; 0: not looked at */
    uint64_t frames;       /* that ended with a marker */
    uint64_t torn;         /* that did not, or were too short */
} stream_t;

typedef struct {
    uint32_t count;
    uint32_t pad;
    int64_t at;
} arrival_t;

typedef struct {
    int fd;
    int stream_count;
    int transport_cc_id;
    int transport_cc_last; /* -1: none yet */
    int arrival_count;
    uint16_t next_transport_cc;
    uint16_t started;
    arrival_t arrivals[64];
    stream_t streams[64];
} port_t;

typedef struct {
    int port;
    int video;
    int clip;              /* templates are the packets of a recording, played in a circle, whole frames */
    int template_count;    /* else of three: a key frame's first packet, another frame's, any further one */
    int transport_cc_at;   /* offsets in the packet, -1: not there */
    int send_time_at;
    int picture_at;
    int mark_at;           /* from the end */
    int key_frame_wanted;
    int position;
    double per_frame;
    double owed;
    double clock_rate;
    int64_t interval;      /* ns between two frames */
    int64_t due;           /* of the monotonic clock */
    uint32_t rollover;
    uint32_t timestamp;
    uint16_t number;
    uint16_t picture;
    uint64_t sent;
    uint64_t octets;
} source_t;

typedef struct {
    int port;
    int size;
    uint8_t data[2048];
} other_t;

typedef struct {
    int port_count;
    int source_count;
    int other_count;
    int others_lost;
    uint64_t sent;
    uint64_t delivered;
    uint64_t samples;
    uint64_t bad_samples;
    uint64_t send_errors;
    uint64_t latency_count;
    int64_t latest_burst;  /* ns a burst was late, at most */
    port_t *ports;
    source_t *sources;
    other_t *others;
    uint32_t *latencies;   /* us, of samples */
} gen_t;

gen_t *gen_new(int max_ports, int max_sources, int offload);
void gen_free(gen_t *gen);
int gen_add_port(gen_t *gen, int fd, const uint8_t *inbound, const uint8_t *outbound, int transport_cc_id);
int gen_add_stream(gen_t *gen, int port, uint32_t ssrc);
int gen_add_source(gen_t *gen, int port, int template_count, const uint8_t *templates, const int *sizes,
                   const uint8_t *flags);
void gen_run(gen_t *gen, int64_t until, int64_t end);
/* end of cdef */

#define BATCH 64
#define MOST_OTHERS 4096
#define MOST_LATENCIES (1 << 20)
#define SAMPLE_EVERY 50 /* coprime to 33: every place in a burst is sampled as often as any other */
#define TEMPLATE 1600
#define DRAIN_INTERVAL 1000000
#define FIRST 1
#define LAST 2
#define KEY 4

typedef struct {
    srtp_t in, out;
} keys_t;

typedef struct {
    uint8_t *packets;
    int *sizes;
    uint8_t *flags;
} templates_t;

typedef struct {
    gen_t public;
    keys_t *keys;
    templates_t *templates;
    int epoll, slot, batch, offload, max_ports, max_sources;
    int64_t drained;
    uint8_t *arena;
    char (*controls)[64];
    struct iovec vectors[BATCH];
    struct mmsghdr messages[BATCH];
    uint8_t out[256 * 1700];
    struct iovec out_vectors[256];
    struct mmsghdr out_messages[256];
} gen_private;

static int64_t clock_ns(clockid_t clock) {
    struct timespec t;
    clock_gettime(clock, &t);
    return t.tv_sec * 1000000000ll + t.tv_nsec;
}

gen_t *gen_new(int max_ports, int max_sources, int offload) {
    gen_private *gen = calloc(1, sizeof *gen);
    gen->max_ports = max_ports, gen->max_sources = max_sources, gen->offload = offload;
    gen->public.ports = calloc(max_ports + 1, sizeof(port_t));
    gen->public.sources = calloc(max_sources + 1, sizeof(source_t));
    gen->public.others = calloc(MOST_OTHERS, sizeof(other_t));
    gen->public.latencies = calloc(MOST_LATENCIES, sizeof(uint32_t));
    gen->keys = calloc(max_ports + 1, sizeof(keys_t));
    gen->templates = calloc(max_sources + 1, sizeof(templates_t));
    gen->epoll = epoll_create1(0);
    gen->slot = offload ? 65536 : 2048, gen->batch = offload ? 16 : BATCH;
    gen->arena = malloc((size_t)gen->slot * gen->batch);
    gen->controls = calloc(BATCH, 64);
    return &gen->public;
}

void gen_free(gen_t *public) {
    gen_private *gen = (gen_private *)public;
    for (int i = 0; i < public->port_count; i++) srtp_close(&gen->keys[i].in), srtp_close(&gen->keys[i].out);
    for (int i = 0; i < public->source_count; i++)
        free(gen->templates[i].packets), free(gen->templates[i].sizes), free(gen->templates[i].flags);
    close(gen->epoll);
    free(public->ports), free(public->sources), free(public->others), free(public->latencies);
    free(gen->keys), free(gen->templates), free(gen->arena), free(gen->controls), free(gen);
}

int gen_add_port(gen_t *public, int fd, const uint8_t *inbound, const uint8_t *outbound, int transport_cc_id) {
    gen_private *gen = (gen_private *)public;
    int index = public->port_count, on = 1;
    if (index >= gen->max_ports || srtp_open(&gen->keys[index].in, inbound, inbound + 16, 0) ||
        srtp_open(&gen->keys[index].out, outbound, outbound + 16, 1))
        return -1;
    public->ports[index] = (port_t){.fd = fd, .transport_cc_id = transport_cc_id, .transport_cc_last = -1};
    if (gen->offload) setsockopt(fd, 17, 104, &on, sizeof on); /* UDP_GRO */
    struct epoll_event event = {.events = EPOLLIN, .data.u32 = index};
    if (epoll_ctl(gen->epoll, EPOLL_CTL_ADD, fd, &event)) return -1;
    public->port_count++;
    return index;
}

int gen_add_stream(gen_t *gen, int port, uint32_t ssrc) {
    port_t *at = &gen->ports[port];
    if (at->stream_count >= 64) return -1;
    at->streams[at->stream_count] = (stream_t){.ssrc = ssrc};
    return at->stream_count++;
}

int gen_add_source(gen_t *public, int port, int count, const uint8_t *templates, const int *sizes,
                   const uint8_t *flags) {
    gen_private *gen = (gen_private *)public;
    int index = public->source_count;
    if (index >= gen->max_sources) return -1;
    templates_t *own = &gen->templates[index];
    own->packets = malloc((size_t)count * TEMPLATE), own->sizes = malloc(count * sizeof(int)), own->flags = malloc(count);
    memcpy(own->packets, templates, (size_t)count * TEMPLATE);
    memcpy(own->sizes, sizes, count * sizeof(int));
    memcpy(own->flags, flags, count);
    public->sources[index] = (source_t){.port = port, .template_count = count, .key_frame_wanted = 1};
    public->source_count++;
    return index;
}

static int header_size(const uint8_t *packet, int size) {
    int header = 12 + 4 * (packet[0] & 15);
    if (packet[0] & 0x10 && size >= header + 4) header += 4 + 4 * get16(packet + header + 2);
    return header;
}

/* -- sending */

static int build(gen_private *gen, source_t *source, uint8_t *packet, int template, int flags, int64_t real,
                 int64_t now) {
    templates_t *templates = &gen->templates[source - gen->public.sources];
    int size = templates->sizes[template];
    memcpy(packet, templates->packets + (size_t)template * TEMPLATE, size);
    packet[1] = (packet[1] & 0x7F) | (source->video && flags & LAST ? 0x80 : 0);
    put16(packet + 2, source->number);
    put32(packet + 4, source->timestamp);
    if (source->transport_cc_at >= 0)
        put16(packet + source->transport_cc_at, gen->public.ports[source->port].next_transport_cc++);
    if (source->send_time_at >= 0) {
        uint32_t time = (uint32_t)((unsigned __int128)now * (1 << 18) / 1000000000) & 0xFFFFFF;
        packet[source->send_time_at] = time >> 16;
        put16(packet + source->send_time_at + 1, time);
    }
    if (source->picture_at >= 0) put16(packet + source->picture_at, 0x8000 | source->picture);
    if (source->mark_at >= 0) {
        put64(packet + size - source->mark_at + 4, source->sent);
        put64(packet + size - source->mark_at + 12, real);
    }
    int header = header_size(packet, size);
    source->octets += size - header;
    size = srtp_protect(&gen->keys[source->port].out, packet, header, size, source->rollover);
    if (++source->number == 0) source->rollover++;
    source->sent++;
    return size;
}

static void send_frame(gen_private *gen, source_t *source, int64_t now) {
    int fd = gen->public.ports[source->port].fd, count = 0;
    uint8_t *flags = gen->templates[source - gen->public.sources].flags;
    source->timestamp = (uint32_t)(now * (source->clock_rate / 1e9));
    source->picture = (source->picture + 1) & 0x7FFF;
    source->owed += source->per_frame;
    int wanted = (int)source->owed;
    source->owed -= wanted;
    int key = source->key_frame_wanted;
    if (wanted || source->clip) source->key_frame_wanted = 0;
    if (key && source->clip) source->position = 0;
    for (int i = 0, last = 0; source->clip ? !last : i < wanted; i++) {
        int template = 0, flag = (i == 0 ? FIRST : 0) | (i == wanted - 1 ? LAST : 0);
        if (source->clip) {
            template = source->position;
            flag = flags[template];
            source->position = (template + 1) % source->template_count;
        } else if (source->video)
            template = i ? 2 : key ? 0 : 1;
        last = flag & LAST;
        uint8_t *packet = gen->out + count * 1700;
        int size = build(gen, source, packet, template, flag, clock_ns(CLOCK_REALTIME), now);
        gen->out_vectors[count] = (struct iovec){packet, size};
        gen->out_messages[count].msg_hdr = (struct msghdr){.msg_iov = &gen->out_vectors[count], .msg_iovlen = 1};
        gen->public.sent++;
        int end = source->clip ? last : i == wanted - 1;
        if (++count == 256 || end) {
            for (int done = 0; done < count;) {
                int n = sendmmsg(fd, gen->out_messages + done, count - done, 0);
                if (n < 0 && errno == EINTR) continue;
                if (n <= 0) gen->public.send_errors++;
                done += n > 0 ? n : 1;
            }
            count = 0;
        }
    }
}

/* -- receiving */

static void note_number(gen_t *gen, stream_t *stream, uint16_t number) {
    if (!stream->started) stream->started = 1, stream->expected = number;
    uint16_t ahead = number - stream->expected;
    if (ahead < 0x8000) {
        for (uint16_t i = 0; i < ahead && stream->missing_count < 128; i++)
            stream->missing[stream->missing_count++] = stream->expected + i;
        stream->gaps += ahead;
        if ((uint16_t)(number + 1) < stream->expected) stream->cycles++;
        stream->expected = number + 1;
    } else {
        uint32_t i = 0;
        while (i < stream->missing_count && stream->missing[i] != number) i++;
        if (i < stream->missing_count) {
            stream->missing[i] = stream->missing[--stream->missing_count];
            stream->gaps--;
        } else {
            stream->duplicates++;
            return;
        }
    }
    stream->delivered++;
    gen->delivered++;
}

static void note_frame(stream_t *stream, const uint8_t *packet) {
    uint32_t timestamp = get32(packet + 4);
    if (timestamp != stream->timestamp || !stream->in_frame) {
        if (stream->in_frame && !stream->ended) stream->torn++;
        stream->timestamp = timestamp, stream->in_frame = stream->ended = 0;
    }
    stream->in_frame++;
    if (!(packet[1] & 0x80)) return;
    stream->ended = 1;
    stream->frames++;
    if (stream->in_frame < stream->whole) stream->torn++;
}

static void sample(gen_private *gen, int port, stream_t *stream, uint8_t *packet, int size, int64_t received) {
    gen_t *public = &gen->public;
    /* `expected` has gone past this number already: at 0 the packet was still of the cycle before. */
    uint32_t rollover = stream->cycles - (stream->expected == 0 && stream->cycles ? 1 : 0);
    int header = header_size(packet, size);
    size = srtp_unprotect(&gen->keys[port].in, packet, header, size, rollover);
    public->samples++;
    if (size < header + 20) {
        public->bad_samples++;
        return;
    }
    const uint8_t *mark = packet + size - 20;
    if (memcmp(mark, "mark", 4) || !received) {
        public->bad_samples++;
        return;
    }
    int64_t latency = received - (int64_t)get64(mark + 12);
    if (public->latency_count < MOST_LATENCIES)
        public->latencies[public->latency_count++] = latency > 0 ? latency / 1000 : 0;
}

static int read_transport_cc(const uint8_t *packet, int size, int id) {
    int at = 16, end = header_size(packet, size);
    if ((packet[0] & 0x1F) != 0x10 || end > size) return -1;
    while (at + 2 < end) {
        if (packet[at] >> 4 == id) return get16(packet + at + 1);
        at += packet[at] == 0 ? 1 : 2 + (packet[at] & 15);
    }
    return -1;
}

static void take(gen_private *gen, int index, uint8_t *packet, int size, int64_t received, uint32_t *media,
                 uint8_t **last) {
    gen_t *public = &gen->public;
    port_t *port = &public->ports[index];
    if (size >= 12 && packet[0] >> 6 == 2 && (packet[1] < 192 || packet[1] >= 224)) {
        uint32_t ssrc = get32(packet + 8);
        for (int i = 0; i < port->stream_count; i++) {
            stream_t *stream = &port->streams[i];
            if (stream->ssrc != ssrc) continue;
            uint16_t number = get16(packet + 2);
            int fresh = !stream->started, in_order = fresh || number == stream->expected;
            if (stream->whole && (fresh || (uint16_t)(number - stream->expected) < 0x8000)) note_frame(stream, packet);
            note_number(public, stream, number);
            ++*media;
            if (port->transport_cc_id && (packet[0] & 0x10)) *last = packet;
            if (in_order && (fresh || number % SAMPLE_EVERY == 0)) {
                if (port->transport_cc_id) { /* before the header's neighbours are decrypted */
                    int cc = read_transport_cc(packet, size, port->transport_cc_id);
                    if (cc >= 0) port->transport_cc_last = cc;
                    *last = 0;
                }
                sample(gen, index, stream, packet, size, received);
            }
            return;
        }
    }
    if (public->other_count == MOST_OTHERS || size > 2048) {
        public->others_lost++;
        return;
    }
    other_t *other = &public->others[public->other_count++];
    other->port = index, other->size = size;
    memcpy(other->data, packet, size);
}

static int drain(gen_private *gen, int index, int64_t now) {
    port_t *port = &gen->public.ports[index];
    uint32_t media = 0;
    int n;
    do {
        for (int i = 0; i < gen->batch; i++) {
            gen->vectors[i] = (struct iovec){gen->arena + (size_t)i * gen->slot, gen->slot};
            gen->messages[i].msg_hdr = (struct msghdr){0, 0, &gen->vectors[i], 1, gen->controls[i], 64, 0};
        }
        n = recvmmsg(port->fd, gen->messages, gen->batch, MSG_DONTWAIT, 0);
        uint8_t *last = 0;
        for (int i = 0; i < n; i++) {
            int size = gen->messages[i].msg_len, segment = size;
            int64_t received = 0;
            struct msghdr *header = &gen->messages[i].msg_hdr;
            for (struct cmsghdr *c = CMSG_FIRSTHDR(header); c; c = CMSG_NXTHDR(header, c)) {
                if (c->cmsg_level == SOL_SOCKET && c->cmsg_type == 35) { /* SO_TIMESTAMPNS */
                    struct timespec t;
                    memcpy(&t, CMSG_DATA(c), sizeof t);
                    received = t.tv_sec * 1000000000ll + t.tv_nsec;
                } else if (c->cmsg_level == 17 && c->cmsg_type == 104)
                    memcpy(&segment, CMSG_DATA(c), sizeof segment);
            }
            uint8_t *data = gen->arena + (size_t)i * gen->slot;
            for (int at = 0; at < size; at += segment)
                take(gen, index, data + at, size - at < segment ? size - at : segment, received, &media, &last);
        }
        if (last) {
            int cc = read_transport_cc(last, 2048, port->transport_cc_id);
            if (cc >= 0) port->transport_cc_last = cc;
        }
    } while (n == gen->batch);
    if (media && port->arrival_count < 64) port->arrivals[port->arrival_count++] = (arrival_t){media, 0, now};
    else if (media) port->arrivals[63].count += media;
    return n;
}

/* Send what is due before `end` and drain what comes, until the monotonic clock says `until`. */
void gen_run(gen_t *public, int64_t until, int64_t end) {
    gen_private *gen = (gen_private *)public;
    int64_t now = clock_ns(CLOCK_MONOTONIC);
    do {
        int64_t next = until < gen->drained + DRAIN_INTERVAL ? until : gen->drained + DRAIN_INTERVAL;
        for (int i = 0; i < public->source_count; i++) {
            source_t *source = &public->sources[i];
            while (source->due <= now && source->due < end && source->interval) {
                if (now - source->due > public->latest_burst) public->latest_burst = now - source->due;
                send_frame(gen, source, now);
                source->due += source->interval;
            }
            if (source->due < end && source->due < next) next = source->due;
        }
        now = clock_ns(CLOCK_MONOTONIC);
        if (now >= gen->drained + DRAIN_INTERVAL) {
            struct epoll_event events[256];
            int ready = epoll_wait(gen->epoll, events, 256, 0);
            for (int i = 0; i < ready; i++) drain(gen, events[i].data.u32, now);
            if (ready < 256) gen->drained = now;
        } else if (next > now) {
            struct timespec t = {next / 1000000000, next % 1000000000};
            clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, 0);
        }
        now = clock_ns(CLOCK_MONOTONIC);
    } while (now < until);
}
