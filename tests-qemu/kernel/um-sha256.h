/* SPDX-License-Identifier: GPL-2.0 */
/*
 * SHA-256 by the processor's own instructions, for user-mode Linux.
 *
 * x86's sha256.h wants what only a kernel on bare metal has (xstate, static
 * calls that are patched). The instructions themselves are those of any
 * program: kernel_fpu_begin() is nothing here, as the host saves a program's
 * registers whenever a signal, which is an interrupt to this kernel, comes in
 * between.
 */
#include <asm/cpufeature.h>

asmlinkage void sha256_ni_transform(struct sha256_block_state *state,
				    const u8 *data, size_t nblocks);
asmlinkage void sha256_ni_finup2x(const struct __sha256_ctx *ctx,
				  const u8 *data1, const u8 *data2, int len,
				  u8 out1[SHA256_DIGEST_SIZE],
				  u8 out2[SHA256_DIGEST_SIZE]);

static bool have_sha_ni __ro_after_init;

static void sha256_blocks(struct sha256_block_state *state,
			  const u8 *data, size_t nblocks)
{
	if (likely(have_sha_ni))
		sha256_ni_transform(state, data, nblocks);
	else
		sha256_blocks_generic(state, data, nblocks);
}

#define sha256_finup_2x_arch sha256_finup_2x_arch
static bool sha256_finup_2x_arch(const struct __sha256_ctx *ctx,
				 const u8 *data1, const u8 *data2, size_t len,
				 u8 out1[SHA256_DIGEST_SIZE],
				 u8 out2[SHA256_DIGEST_SIZE])
{
	/* No more than x86's sha256.h hashes at once. */
	if (!have_sha_ni || len < SHA256_BLOCK_SIZE || len > 65536)
		return false;
	sha256_ni_finup2x(ctx, data1, data2, len, out1, out2);
	return true;
}

static bool sha256_finup_2x_is_optimized_arch(void)
{
	return have_sha_ni;
}

#define sha256_mod_init_arch sha256_mod_init_arch
static void sha256_mod_init_arch(void)
{
	have_sha_ni = boot_cpu_has(X86_FEATURE_SHA_NI);
	pr_info("SHA-256 by the processor's %s instructions\n",
		have_sha_ni ? "SHA" : "general");
}
