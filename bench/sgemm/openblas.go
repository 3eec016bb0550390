package main

/*
#cgo LDFLAGS: -ldl
#include <dlfcn.h>
#include <stdlib.h>
#include <time.h>

typedef void (*sgemm_t)(int order, int ta, int tb, int m, int n, int k, float alpha,
	const float *a, int lda, const float *b, int ldb, float beta, float *c, int ldc);

static sgemm_t sgemm;
static void (*set_threads)(int);
static char *(*get_config)(void);
static char *(*get_core)(void);

static const char *blas_open(const char *path) {
	void *lib = dlopen(path, RTLD_NOW | RTLD_LOCAL);
	if (!lib) return dlerror();
	sgemm = (sgemm_t)dlsym(lib, "cblas_sgemm");
	set_threads = (void (*)(int))dlsym(lib, "openblas_set_num_threads");
	get_config = (char *(*)(void))dlsym(lib, "openblas_get_config");
	get_core = (char *(*)(void))dlsym(lib, "openblas_get_corename");
	if (!sgemm || !set_threads || !get_config || !get_core) return "this is no OpenBLAS";
	return 0;
}

static void blas_threads(int n) { set_threads(n); }
static const char *blas_config(void) { return get_config(); }
static const char *blas_core(void) { return get_core(); }

// blas_run repeats one product and returns nanoseconds. The loop is here so that
// no call pays for the way from Go to C.
static double blas_run(int times, int ta, int tb, int m, int n, int k,
	const float *a, int lda, const float *b, int ldb, float *c) {
	struct timespec t0, t1;
	clock_gettime(CLOCK_MONOTONIC, &t0);
	for (int i = 0; i < times; i++)
		sgemm(101, ta ? 112 : 111, tb ? 112 : 111, m, n, k, 1, a, lda, b, ldb, 0, c, n);
	clock_gettime(CLOCK_MONOTONIC, &t1);
	return (t1.tv_sec - t0.tv_sec) * 1e9 + (t1.tv_nsec - t0.tv_nsec);
}
*/
import "C"

import (
	"fmt"
	"time"
	"unsafe"
)

// openBLAS loads the library; only this command ever does.
func openBLAS(path string, threads int) (about string, err error) {
	name := C.CString(path)
	defer C.free(unsafe.Pointer(name))
	if why := C.blas_open(name); why != nil {
		return "", fmt.Errorf("loading OpenBLAS: %s", C.GoString(why))
	}
	C.blas_threads(C.int(threads))
	return C.GoString(C.blas_config()) + ", kernels for " + C.GoString(C.blas_core()), nil
}

// blas computes a product that many times.
func (s shape) blas(times int, a, b, c []float32) time.Duration {
	ta, tb, lda, ldb := 0, 0, s.k, s.n
	switch s.kind {
	case nt:
		tb, ldb = 1, s.k
	case tn:
		ta, lda = 1, s.m
	}
	ns := C.blas_run(C.int(times), C.int(ta), C.int(tb), C.int(s.m), C.int(s.n), C.int(s.k),
		(*C.float)(&a[0]), C.int(lda), (*C.float)(&b[0]), C.int(ldb), (*C.float)(&c[0]))
	return time.Duration(ns)
}
