/* SPDX-License-Identifier: MIT */
/* skew.cu - the kernel of skew.c. For clang's NVPTX backend, without any header of a toolkit. */
#define KERNEL extern "C" __attribute__((global)) void

/* One block: each thread its words of all n. */
KERNEL fold(unsigned int *sum, const unsigned int *w, int n)
{
	int t = (int)__nvvm_read_ptx_sreg_tid_x(), many = (int)__nvvm_read_ptx_sreg_ntid_x();
	unsigned int s = sum[t];

	for (int i = t; i < n; i += many)
		s = s * 31 + w[i];
	sum[t] = s;
}
