/* SPDX-License-Identifier: MIT */
/* cuda_image.c - images that are loaded, and kernels got from them: what a driver does not
 * tell of their parameters is read from the images.
 *
 * (1) Drivers from 12.4 on tell: then nothing is read, and the calls are passed on.
 * (2) An image is read after the driver took it, before its module is the program's.
 * Owns nothing but what it found out of the driver; lock: none.
 */
#include "interpose/cuda_int.h"

#define TELLS 12040	/* cuFuncGetParamInfo, cuKernelGetParamInfo */

bool cuda_reads_images(void)
{
	static int answer;	/* 0: not asked yet; the same from whoever asks */
	int known = __atomic_load_n(&answer, __ATOMIC_RELAXED), version = 0;

	if (known)
		return known > 0;
	if (DRIVER(cuDriverGetVersion))
		DRIVER(cuDriverGetVersion)(&version);
	known = version < TELLS || !DRIVER(cuFuncGetParamInfo) ? 1 : -1;
	__atomic_store_n(&answer, known, __ATOMIC_RELAXED);
	return known > 0;
}

/* It was loaded, and its image is to be read. */
static bool wanted(CUresult r, const void *owner)
{
	return r == CUDA_SUCCESS && owner && cuda_reads_images() && device_begin();
}

#define SIG_load (CUmodule *m, const void *image)
#define ARG_load m, image
static CUresult on_load(__typeof__(&cuModuleLoadData) real, CUmodule *m, const void *image)
{
	CUresult r = real(m, image);

	if (wanted(r, m))
		device_image((uintptr_t)*m, image);
	return r;
}

#define SIG_load_ex (CUmodule *m, const void *image, unsigned int n, CUjit_option *options, \
		     void **values)
#define ARG_load_ex m, image, n, options, values
static CUresult on_load_ex(__typeof__(&cuModuleLoadDataEx) real, CUmodule *m,
			   const void *image, unsigned int n, CUjit_option *options,
			   void **values)
{
	CUresult r = real(m, image, n, options, values);

	if (wanted(r, m))
		device_image((uintptr_t)*m, image);
	return r;
}

#define SIG_load_library (CUlibrary *l, const void *image, CUjit_option *options, \
			  void **values, unsigned int n, CUlibraryOption *more, \
			  void **more_values, unsigned int m)
#define ARG_load_library l, image, options, values, n, more, more_values, m
static CUresult on_load_library(__typeof__(&cuLibraryLoadData) real, CUlibrary *l,
				const void *image, CUjit_option *options, void **values,
				unsigned int n, CUlibraryOption *more, void **more_values,
				unsigned int m)
{
	CUresult r = real(ARG_load_library);

	if (wanted(r, l))
		device_image((uintptr_t)*l, image);
	return r;
}

#define SIG_load_file (CUmodule *m, const char *path)
#define ARG_load_file m, path
static CUresult on_load_file(__typeof__(&cuModuleLoad) real, CUmodule *m, const char *path)
{
	CUresult r = real(m, path);

	if (wanted(r, m))
		device_image_file((uintptr_t)*m, path);
	return r;
}

#define SIG_load_library_file (CUlibrary *l, const char *path, CUjit_option *options, \
			       void **values, unsigned int n, CUlibraryOption *more, \
			       void **more_values, unsigned int m)
#define ARG_load_library_file l, path, options, values, n, more, more_values, m
static CUresult on_load_library_file(__typeof__(&cuLibraryLoadFromFile) real, CUlibrary *l,
				     const char *path, CUjit_option *options, void **values,
				     unsigned int n, CUlibraryOption *more, void **more_values,
				     unsigned int m)
{
	CUresult r = real(ARG_load_library_file);

	if (wanted(r, l))
		device_image_file((uintptr_t)*l, path);
	return r;
}

#define SIG_get_function (CUfunction *f, CUmodule m, const char *name)
#define ARG_get_function f, m, name
static CUresult on_get_function(__typeof__(&cuModuleGetFunction) real, CUfunction *f,
				CUmodule m, const char *name)
{
	CUresult r = real(f, m, name);

	if (r == CUDA_SUCCESS && f && cuda_reads_images())
		device_image_fn((uintptr_t)*f, (uintptr_t)m, name);
	return r;
}

#define SIG_kernel_function (CUfunction *f, CUkernel k)
#define ARG_kernel_function f, k
static CUresult on_kernel_function(__typeof__(&cuKernelGetFunction) real, CUfunction *f,
				   CUkernel k)
{
	CUresult r = real(f, k);

	if (r == CUDA_SUCCESS && f && cuda_reads_images())
		device_image_same((uintptr_t)*f, (uintptr_t)k);
	return r;
}

#define SIG_library_module (CUmodule *m, CUlibrary l)
#define ARG_library_module m, l
static CUresult on_library_module(__typeof__(&cuLibraryGetModule) real, CUmodule *m, CUlibrary l)
{
	CUresult r = real(m, l);

	if (r == CUDA_SUCCESS && m && cuda_reads_images())
		device_image_module((uintptr_t)*m, (uintptr_t)l);
	return r;
}

#define CU_IMAGE HOOK
#include "interpose/cuda_hook.def"
