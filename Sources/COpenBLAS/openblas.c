#define _GNU_SOURCE
#include "COpenBLAS.h"

#include <dlfcn.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static __typeof__(&cblas_sgemm) sgemm;
static void *(*take_memory)(int);
static void (*give_memory)(void *);
static const char *problem;
static char text[512];

// What it asks for at a time, and a little. It asks for ever when that is refused, so the refusal has to come first.
static const size_t product_size = (128ul << 20) + (4ul << 20);

static int has_room(size_t size) {
    void *room = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
    if (room != MAP_FAILED) munmap(room, size);
    return room != MAP_FAILED;
}

bool openblas_has_room(void) { return has_room((64ul << 20) + product_size); } // for it and its first memory

// Loads the library while the environment asks for one thread. Not by setenv, which may free what another thread reads: the
// environment is another array for that moment, which is never freed.
static void load(void) {
    static char one[] = "OPENBLAS_NUM_THREADS=1";
    if (!openblas_has_room()) {
        problem = "the process may not take 200 MiB more of address space";
        return;
    }
    char **before = environ;
    size_t count = 0;
    while (before && before[count]) count++;
    static char **during;  // static, so that checkers of leaks find it
    during = calloc(count + 2, sizeof *during);
    if (!during) {
        problem = "there is no memory";
        return;
    }
    during[0] = one;
    for (size_t from = 0, to = 1; from < count; from++)
        if (strncmp(before[from], one, strlen("OPENBLAS_NUM_THREADS=")) != 0) during[to++] = before[from];
    environ = during;
    void *library = dlopen("libopenblas.so.0", RTLD_NOW | RTLD_LOCAL);
    environ = before;
    if (library) sgemm = (__typeof__(sgemm))dlsym(library, "cblas_sgemm");
    if (!sgemm) {
        const char *reason = dlerror();
        strncpy(text, reason ? reason : "no reason given", sizeof text - 1);
        problem = text;
        return;
    }
    void (*set_threads)(int) = (void (*)(int))dlsym(library, "openblas_set_num_threads");
    if (set_threads) set_threads(1);
    take_memory = (void *(*)(int))dlsym(library, "blas_memory_alloc");
    give_memory = (void (*)(void *))dlsym(library, "blas_memory_free");
}

const char *openblas_load(void) {
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, load);
    return problem;
}

int openblas_reserve(int count) {
    if (!take_memory || !give_memory) return count;
    void *taken[64];  // as many as Debian's build has
    int done = 0;
    while (done < count && done < 64 && has_room(product_size)) taken[done++] = take_memory(0);
    for (int index = 0; index < done; index++) give_memory(taken[index]);
    return done;
}

void openblas_sgemm(enum CBLAS_ORDER order, enum CBLAS_TRANSPOSE transpose_a, enum CBLAS_TRANSPOSE transpose_b, int m, int n,
                    int k, float alpha, const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc) {
    sgemm(order, transpose_a, transpose_b, m, n, k, alpha, a, lda, b, ldb, beta, c, ldc);
}
