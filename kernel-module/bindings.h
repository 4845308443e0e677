/* SPDX-License-Identifier: GPL-2.0 */
/*
 * The headers that bindgen reads for the delta of bindings.rs; bindgen_parameters
 * lists which of their names are taken.
 */

#ifndef TESSERAFS_BINDINGS_H
#define TESSERAFS_BINDINGS_H

#include <linux/exportfs.h>
#include <linux/fadvise.h>
#include <linux/filelock.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/fs/super_types.h>
#include <linux/gfp.h>
#include <linux/key.h>
#include <linux/magic.h>
#include <linux/mount.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/posix_acl_xattr.h>
#include <linux/pseudo_fs.h>
#include <linux/slab.h>
#include <linux/statfs.h>
#include <linux/verification.h>
#include <linux/xattr.h>
#include <linux/zstd.h>

#include "helpers.h"

/* Constants that are expressions in C, which bindgen would not evaluate. */
static const unsigned int TESSERAFS_CONST_FMODE_CAN_READ = (__force unsigned int)FMODE_CAN_READ;
static const unsigned int TESSERAFS_CONST_FMODE_CAN_ODIRECT = (__force unsigned int)FMODE_CAN_ODIRECT;
static const unsigned int TESSERAFS_CONST_FMODE_NOWAIT = (__force unsigned int)FMODE_NOWAIT;
static const unsigned int TESSERAFS_CONST_FMODE_READ = (__force unsigned int)FMODE_READ;
static const unsigned int TESSERAFS_CONST_FOP_DONTCACHE = (__force unsigned int)FOP_DONTCACHE;
static const unsigned int TESSERAFS_CONST_FOP_IMMUTABLE = (__force unsigned int)FOP_IMMUTABLE;
static const unsigned int TESSERAFS_CONST_FS_IOC_GETFSLABEL = FS_IOC_GETFSLABEL;
static const unsigned int TESSERAFS_CONST_FS_IOC_GETVERSION = FS_IOC_GETVERSION;
static const gfp_t TESSERAFS_CONST_GFP_ACCOUNT = __GFP_ACCOUNT;
static const gfp_t TESSERAFS_CONST_GFP_TRY = (GFP_KERNEL | __GFP_NOWARN) & ~__GFP_DIRECT_RECLAIM;
static const gfp_t TESSERAFS_CONST_GFP_ZERO = __GFP_ZERO;
static const int TESSERAFS_CONST_IOCB_DIRECT = IOCB_DIRECT;
static const int TESSERAFS_CONST_IOCB_DONTCACHE = IOCB_DONTCACHE;
static const int TESSERAFS_CONST_IOCB_NOIO = IOCB_NOIO;
static const int TESSERAFS_CONST_IOCB_NOWAIT = IOCB_NOWAIT;
static const size_t TESSERAFS_CONST_KMALLOC_MAX_CACHE_SIZE = KMALLOC_MAX_CACHE_SIZE;
static const loff_t TESSERAFS_CONST_MAX_LFS_FILESIZE = MAX_LFS_FILESIZE;
static const unsigned int TESSERAFS_CONST_SB_BORN = SB_BORN;
static const unsigned int TESSERAFS_CONST_SB_NOATIME = SB_NOATIME;
static const unsigned int TESSERAFS_CONST_SB_POSIXACL = SB_POSIXACL;
static const unsigned int TESSERAFS_CONST_SB_RDONLY = SB_RDONLY;

#endif /* TESSERAFS_BINDINGS_H */
