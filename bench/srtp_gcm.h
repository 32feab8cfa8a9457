/* SRTP with AES-128-GCM (RFC 7714) through libcrypto, for floor.c and generator.c.

   libcrypto's functions are declared here by hand, so that its run-time library is enough and no headers are needed. */
#include <stdint.h>
#include <string.h>

#define TAG 16

typedef struct evp_cipher_ctx_st EVP_CIPHER_CTX;
typedef struct evp_cipher_st EVP_CIPHER;
extern EVP_CIPHER_CTX *EVP_CIPHER_CTX_new(void);
extern void EVP_CIPHER_CTX_free(EVP_CIPHER_CTX *);
extern const EVP_CIPHER *EVP_aes_128_gcm(void);
extern int EVP_CipherInit_ex(EVP_CIPHER_CTX *, const EVP_CIPHER *, void *, const uint8_t *, const uint8_t *, int);
extern int EVP_CipherUpdate(EVP_CIPHER_CTX *, uint8_t *, int *, const uint8_t *, int);
extern int EVP_CipherFinal_ex(EVP_CIPHER_CTX *, uint8_t *, int *);
extern int EVP_CIPHER_CTX_ctrl(EVP_CIPHER_CTX *, int, int, void *);
#define GET_TAG 0x10
#define SET_TAG 0x11

typedef struct {
    EVP_CIPHER_CTX *context;
    uint8_t salt[12];
} srtp_t;

static inline void put16(uint8_t *at, uint32_t v) { at[0] = v >> 8; at[1] = v; }
static inline void put32(uint8_t *at, uint32_t v) { put16(at, v >> 16); put16(at + 2, v); }
static inline void put64(uint8_t *at, uint64_t v) { put32(at, v >> 32); put32(at + 4, v); }
static inline uint32_t get16(const uint8_t *at) { return at[0] << 8 | at[1]; }
static inline uint32_t get32(const uint8_t *at) { return get16(at) << 16 | get16(at + 2); }
static inline uint64_t get64(const uint8_t *at) { return (uint64_t)get32(at) << 32 | get32(at + 4); }

static int srtp_open(srtp_t *srtp, const uint8_t key[16], const uint8_t salt[12], int encrypt) {
    srtp->context = EVP_CIPHER_CTX_new();
    memcpy(srtp->salt, salt, 12);
    return srtp->context && EVP_CipherInit_ex(srtp->context, EVP_aes_128_gcm(), 0, key, 0, encrypt) ? 0 : -1;
}

static inline void srtp_close(srtp_t *srtp) {
    if (srtp->context) EVP_CIPHER_CTX_free(srtp->context);
    srtp->context = 0;
}

/* RFC 7714, section 8.1: zeros, SSRC, rollover counter and sequence number, under the salt. */
static inline void srtp_iv(const srtp_t *srtp, const uint8_t *packet, uint32_t rollover, uint8_t iv[12]) {
    iv[0] = iv[1] = 0;
    memcpy(iv + 2, packet + 8, 4);
    put32(iv + 6, rollover);
    memcpy(iv + 10, packet + 2, 2);
    for (int i = 0; i < 12; i++) iv[i] ^= srtp->salt[i];
}

/* In place; `header` bytes stay clear, 16 bytes follow `size`. The new size, or -1. */
static int srtp_protect(srtp_t *srtp, uint8_t *packet, int header, int size, uint32_t rollover) {
    uint8_t iv[12];
    int n;
    srtp_iv(srtp, packet, rollover, iv);
    if (!EVP_CipherInit_ex(srtp->context, 0, 0, 0, iv, 1) || !EVP_CipherUpdate(srtp->context, 0, &n, packet, header) ||
        !EVP_CipherUpdate(srtp->context, packet + header, &n, packet + header, size - header) ||
        !EVP_CipherFinal_ex(srtp->context, packet + size, &n) ||
        !EVP_CIPHER_CTX_ctrl(srtp->context, GET_TAG, TAG, packet + size))
        return -1;
    return size + TAG;
}

/* In place; the new size, or -1 where the tag is wrong. */
static int srtp_unprotect(srtp_t *srtp, uint8_t *packet, int header, int size, uint32_t rollover) {
    uint8_t iv[12];
    int n;
    size -= TAG;
    if (size < header) return -1;
    srtp_iv(srtp, packet, rollover, iv);
    if (!EVP_CipherInit_ex(srtp->context, 0, 0, 0, iv, 0) || !EVP_CipherUpdate(srtp->context, 0, &n, packet, header) ||
        !EVP_CipherUpdate(srtp->context, packet + header, &n, packet + header, size - header) ||
        !EVP_CIPHER_CTX_ctrl(srtp->context, SET_TAG, TAG, packet + size) ||
        EVP_CipherFinal_ex(srtp->context, packet + size, &n) <= 0)
        return -1;
    return size;
}
