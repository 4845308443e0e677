// SPDX-License-Identifier: GPL-2.0
/*
 * One-line wrappers of inline functions, macros and variadic functions, the table of mount
 * options, and the module parameter. No logic: code that needs an `if` is written in Rust.
 */

#include <crypto/sha2.h>
#include <linux/blkdev.h>
#include <linux/cpumask.h>
#include <linux/cred.h>
#include <linux/fs.h>
#include <linux/fs_context.h>
#include <linux/fs_parser.h>
#include <linux/fsnotify.h>
#include <linux/fs/super_types.h>
#include <linux/gfp.h>
#include <linux/kdev_t.h>
#include <linux/key.h>
#include <linux/lockdep.h>
#include <linux/major.h>
#include <linux/mm.h>
#include <linux/module.h>
#include <linux/moduleparam.h>
#include <linux/pagemap.h>
#include <linux/posix_acl.h>
#include <linux/ratelimit.h>
#include <linux/sched/mm.h>
#include <linux/sched/signal.h>
#include <linux/seq_file.h>
#include <linux/shrinker.h>
#include <linux/slab.h>
#include <linux/uaccess.h>
#include <linux/uio.h>
#include <linux/vmstat.h>
#include <linux/workqueue.h>

#include "helpers.h"

#define CREATE_TRACE_POINTS
#include "trace.h"

/* Registered in `struct file_system_type`; vfs/context.rs parses with it. */
const struct fs_parameter_spec tesserafs_fs_parameters[] = {
	fsparam_file_or_string("source", TESSERAFS_OPT_SOURCE),
	fsparam_file_or_string("packdir", TESSERAFS_OPT_PACKDIR),
	fsparam_string("digest", TESSERAFS_OPT_OTHER),
	fsparam_flag_no("acl", TESSERAFS_OPT_FLAG),
	fsparam_flag("private_pages", TESSERAFS_OPT_FLAG),
	fsparam_flag("trusted_backing", TESSERAFS_OPT_FLAG),
	{}
};

/*
 * One-way while the module is loaded. Where root is not trusted to keep it loaded, build it in, or give the
 * parameter on the kernel command line and forbid the unloading of modules.
 */
static bool require_signatures;
module_param_named(require_signatures, require_signatures, bool_enable_only, 0644);
MODULE_PARM_DESC(require_signatures,
		 "Mount only images whose signature verifies (can be turned on, never off)");

/* Shared by every message that a user without rights over the machine can trigger at will. */
DEFINE_RATELIMIT_STATE(tesserafs_shared_ratelimit, DEFAULT_RATELIMIT_INTERVAL,
		       DEFAULT_RATELIMIT_BURST);

/*
 * For lockdep: filling a page of an image that lies on another tesserafs takes this lock of an
 * inode of either, and a page of data may need one of metadata.
 */
static struct lock_class_key invalidate_lock_keys[FILESYSTEM_MAX_STACK_DEPTH + 1][2];

struct workqueue_struct *tesserafs_alloc_helpers(int limit)
{
	return alloc_workqueue("tesserafs", WQ_UNBOUND | WQ_SYSFS, limit);
}

struct inode *tesserafs_alloc_inode_sb(struct super_block *sb, struct kmem_cache *cache)
{
	return alloc_inode_sb(sb, cache, GFP_KERNEL);
}

void *tesserafs_alloc_pages_exact(size_t size, gfp_t flags)
{
	return alloc_pages_exact(size, flags);
}

unsigned int tesserafs_bdev_dma_alignment(struct file *bdev_file)
{
	return bdev_dma_alignment(file_bdev(bdev_file));
}

unsigned int tesserafs_bdev_logical_block_size(struct file *bdev_file)
{
	return bdev_logical_block_size(file_bdev(bdev_file));
}

void tesserafs_cache_no_acl(struct inode *inode)
{
	cache_no_acl(inode);
}

bool tesserafs_capable_noaudit(int cap)
{
	return ns_capable_noaudit(&init_user_ns, cap);
}

void tesserafs_count_major_fault(void)
{
	count_vm_event(PGMAJFAULT);
}

void tesserafs_destroy_work_on_stack(struct work_struct *work)
{
	destroy_work_on_stack(work);
}

bool tesserafs_dir_emit(struct dir_context *ctx, const char *name, int namelen, u64 ino,
			unsigned int type)
{
	return dir_emit(ctx, name, namelen, ino, type);
}

bool tesserafs_dir_emit_dots(struct file *file, struct dir_context *ctx)
{
	return dir_emit_dots(file, ctx);
}

bool tesserafs_fatal_signal_pending(void)
{
	return fatal_signal_pending(current);
}

bool tesserafs_fault_has_advice(const struct vm_fault *vmf)
{
	return vmf->vma->vm_flags & (VM_SEQ_READ | VM_RAND_READ | VM_HUGEPAGE | VM_LOCKED);
}

bool tesserafs_fault_may_unlock(const struct vm_fault *vmf)
{
	return fault_flag_allow_retry_first(vmf->flags) &&
	       !(vmf->flags & FAULT_FLAG_RETRY_NOWAIT);
}

/* A caller that wants to be told that the fault would wait: KVM, which lets its guest do something else then. */
bool tesserafs_fault_must_not_wait(const struct vm_fault *vmf)
{
	return fault_flag_allow_retry_first(vmf->flags) &&
	       (vmf->flags & FAULT_FLAG_RETRY_NOWAIT);
}

bool tesserafs_fault_was_tried(const struct vm_fault *vmf)
{
	return vmf->flags & FAULT_FLAG_TRIED;
}

void tesserafs_fc_log(struct fs_context *fc, char level, const char *message)
{
	logfc(fc->log.log, fc->fs_type->name, level, "%s", message);
}

bool tesserafs_fc_log_is_printk(struct fs_context *fc)
{
	return !fc->log.log;
}

bool tesserafs_file_has_page_cache(const struct file *file)
{
	return file->f_mapping->a_ops->read_folio;
}

bool tesserafs_file_is_dax(const struct file *file)
{
	return IS_DAX(file->f_mapping->host);
}

bool tesserafs_file_is_filled_on_access(const struct file *file)
{
	return FMODE_FSNOTIFY_HSM(file->f_mode) &&
	       fsnotify_sb_has_priority_watchers(file->f_inode->i_sb, FSNOTIFY_PRIO_PRE_CONTENT);
}

/* The mount is that of the overlay: it keeps those of its layers. */
struct file *tesserafs_file_open_layer(const struct file *file, int flags, const struct cred *cred)
{
	struct path path = {
		.mnt = file->f_path.mnt,
		.dentry = d_real(file->f_path.dentry, D_REAL_DATA),
	};

	return dentry_open(&path, flags, cred);
}

ssize_t tesserafs_file_read_iter(struct kiocb *iocb, struct iov_iter *iter)
{
	return iocb->ki_filp->f_op->read_iter(iocb, iter);
}

void tesserafs_file_set_no_access_perm(struct file *file)
{
	file_set_fsnotify_mode(file, FMODE_NONOTIFY | FMODE_NONOTIFY_PERM);
}

void tesserafs_file_set_noatime(struct file *file)
{
	file->f_flags |= O_NOATIME;
}

int tesserafs_file_stack_depth(const struct file *file)
{
	return file->f_inode->i_sb->s_stack_depth;
}

/* Locked; the page cache holds it. */
struct folio *tesserafs_filemap_add_new_folio(struct address_space *mapping, unsigned long index,
					      unsigned int order)
{
	gfp_t gfp = readahead_gfp_mask(mapping);
	struct folio *folio = filemap_alloc_folio(gfp, order, NULL);
	int err;

	if (!folio)
		return ERR_PTR(-ENOMEM);
	err = filemap_add_folio(mapping, folio, index, gfp);
	folio_put(folio);
	return err ? ERR_PTR(err) : folio;
}

struct folio *tesserafs_filemap_get_folio(struct address_space *mapping, unsigned long index)
{
	return filemap_get_folio(mapping, index);
}

struct folio *tesserafs_filemap_get_or_add_folio(struct address_space *mapping, unsigned long index)
{
	/* FOR_MMAP: unlocked, whether it was there or not. */
	return __filemap_get_folio(mapping, index, FGP_ACCESSED | FGP_CREAT | FGP_FOR_MMAP,
				   mapping_gfp_mask(mapping));
}

void tesserafs_filemap_invalidate_lock_shared(struct address_space *mapping)
{
	filemap_invalidate_lock_shared(mapping);
}

void tesserafs_filemap_invalidate_unlock_shared(struct address_space *mapping)
{
	filemap_invalidate_unlock_shared(mapping);
}

void tesserafs_flush_dcache_folio(struct folio *folio)
{
	flush_dcache_folio(folio);
}

void *tesserafs_folio_address(struct folio *folio)
{
	return folio_address(folio);
}

void tesserafs_folio_clear_readahead(struct folio *folio)
{
	folio_clear_readahead(folio);
}

struct inode *tesserafs_folio_inode(struct folio *folio)
{
	return folio_inode(folio);
}

/* 1: locked, and to be filled; 0: there is nothing to be filled here; -EINTR: the task is being killed. */
int tesserafs_folio_lock_to_fill(struct folio *folio, struct address_space *mapping)
{
	int err = folio_lock_killable(folio);

	if (err)
		return err;
	if (folio->mapping == mapping && !folio_test_uptodate(folio))
		return 1;
	folio_unlock(folio);
	return 0;
}

struct address_space *tesserafs_folio_mapping(struct folio *folio)
{
	return folio->mapping;
}

loff_t tesserafs_folio_pos(struct folio *folio)
{
	return folio_pos(folio);
}

void tesserafs_folio_put(struct folio *folio)
{
	folio_put(folio);
}

size_t tesserafs_folio_size(struct folio *folio)
{
	return folio_size(folio);
}

bool tesserafs_folio_test_uptodate(const struct folio *folio)
{
	return folio_test_uptodate(folio);
}

bool tesserafs_fs_parameter_is_file(struct fs_parameter *param)
{
	return param->type == fs_value_is_file;
}

int tesserafs_fs_parse(struct fs_context *fc, struct fs_parameter *param)
{
	return fs_parse(fc, tesserafs_fs_parameters, param, &(struct fs_parse_result){});
}

void tesserafs_i_gid_write(struct inode *inode, gid_t gid)
{
	i_gid_write(inode, gid);
}

loff_t tesserafs_i_size_read(const struct inode *inode)
{
	return i_size_read(inode);
}

void tesserafs_i_size_write(struct inode *inode, loff_t size)
{
	i_size_write(inode, size);
}

void tesserafs_i_uid_write(struct inode *inode, uid_t uid)
{
	i_uid_write(inode, uid);
}

struct user_namespace *tesserafs_i_user_ns(const struct inode *inode)
{
	return i_user_ns(inode);
}

void tesserafs_init_sync_kiocb(struct kiocb *kiocb, struct file *file)
{
	init_sync_kiocb(kiocb, file);
}

void tesserafs_init_work_onstack(struct work_struct *work, void (*func)(struct work_struct *work))
{
	INIT_WORK_ONSTACK(work, func);
}

int tesserafs_inode_lock_killable(struct inode *inode)
{
	return inode_lock_killable(inode);
}

void tesserafs_inode_set_cached_link(struct inode *inode, char *link, int linklen)
{
	inode_set_cached_link(inode, link, linklen);
}

/* It is read without a lock. */
void tesserafs_inode_set_mapping(struct inode *inode, struct address_space *mapping)
{
	WRITE_ONCE(inode->i_mapping, mapping);
}

void tesserafs_inode_set_times(struct inode *inode, time64_t sec, long nsec)
{
	inode_set_atime_to_ts(inode, inode_set_mtime_to_ts(inode, inode_set_ctime(inode, sec, nsec)));
}

bool tesserafs_inode_state_is_new(struct inode *inode)
{
	return inode_state_read_once(inode) & I_NEW;
}

void tesserafs_inode_unlock(struct inode *inode)
{
	inode_unlock(inode);
}

size_t tesserafs_iov_iter_count(const struct iov_iter *iter)
{
	return iov_iter_count(iter);
}

struct key *tesserafs_keyring_alloc(const char *description)
{
	return keyring_alloc(description, KUIDT_INIT(0), KGIDT_INIT(0), current_cred(),
			     KEY_POS_SEARCH | KEY_USR_VIEW | KEY_USR_READ | KEY_USR_WRITE |
			     KEY_USR_SEARCH | KEY_USR_SETATTR,
			     KEY_ALLOC_NOT_IN_QUOTA, NULL, NULL);
}

struct kmem_cache *tesserafs_kmem_cache_create(const char *name, unsigned int size,
					       void (*ctor)(void *))
{
	return kmem_cache_create(name, size, 0, SLAB_RECLAIM_ACCOUNT | SLAB_ACCOUNT, ctor);
}

int tesserafs_kobject_add_device(struct kobject *kobj, struct kobject *parent, dev_t device)
{
	return kobject_add(kobj, parent, "%u:%u", MAJOR(device), MINOR(device));
}

unsigned int tesserafs_mapping_max_folio_order(const struct address_space *mapping)
{
	return mapping_max_folio_order(mapping);
}

void tesserafs_mapping_set_large_folios(struct inode *inode)
{
	mapping_set_large_folios(inode->i_mapping);
}

void tesserafs_memalloc_restore(unsigned int flags)
{
	memalloc_flags_restore(flags);
}

unsigned int tesserafs_memalloc_nofs_save(void)
{
	return memalloc_nofs_save();
}

unsigned int tesserafs_memalloc_save(unsigned int scope)
{
	return memalloc_flags_save(scope);
}

unsigned int tesserafs_memalloc_scope(void)
{
	return current->flags & (PF_MEMALLOC_NOFS | PF_MEMALLOC_NOIO);
}

unsigned int tesserafs_num_online_cpus(void)
{
	return num_online_cpus();
}

unsigned int tesserafs_num_possible_cpus(void)
{
	return num_possible_cpus();
}

const struct cred *tesserafs_override_creds(const struct cred *cred)
{
	return override_creds(cred);
}

int tesserafs_put_user_char(char value, char __user *to)
{
	return put_user(value, to);
}

int tesserafs_put_user_int(int value, int __user *to)
{
	return put_user(value, to);
}

void tesserafs_ratelimit_init(struct ratelimit_state *state)
{
	ratelimit_default_init(state);
}

bool tesserafs_ratelimit(struct ratelimit_state *state)
{
	return ___ratelimit(state, KBUILD_MODNAME);
}

struct folio *tesserafs_readahead_folio(struct readahead_control *rac)
{
	return readahead_folio(rac);
}

size_t tesserafs_readahead_length(const struct readahead_control *rac)
{
	return readahead_length(rac);
}

loff_t tesserafs_readahead_pos(const struct readahead_control *rac)
{
	return readahead_pos(rac);
}

void tesserafs_release_fault_lock(struct vm_fault *vmf)
{
	release_fault_lock(vmf);
}

bool tesserafs_require_signatures(void)
{
	return READ_ONCE(require_signatures);
}

void tesserafs_revert_creds(const struct cred *cred)
{
	revert_creds(cred);
}

bool tesserafs_sb_is_anon(const struct super_block *sb)
{
	return MAJOR(sb->s_dev) == UNNAMED_MAJOR;
}

void tesserafs_seq_show_packdir(struct seq_file *seq, const char *path)
{
	seq_show_option(seq, "packdir", path);
}

void tesserafs_set_invalidate_lock_class(struct inode *inode, int depth, bool meta)
{
	lockdep_set_class(&inode->i_mapping->invalidate_lock, &invalidate_lock_keys[depth][meta]);
}

struct shrinker *tesserafs_shrinker_alloc(const char *name)
{
	return shrinker_alloc(0, "%s", name);
}

void tesserafs_super_get_passive(struct super_block *sb)
{
	refcount_inc(&sb->s_passive);
}

void tesserafs_super_lock_shared(struct super_block *sb)
{
	down_read(&sb->s_umount);
}

unsigned int tesserafs_super_passive_count(const struct super_block *sb)
{
	return refcount_read(&sb->s_passive);
}

void tesserafs_super_set_sysfs_name(struct super_block *sb)
{
	super_set_sysfs_name_generic(sb, "%u:%u", MAJOR(sb->s_dev), MINOR(sb->s_dev));
}

void tesserafs_super_set_uuid(struct super_block *sb, const u8 *uuid, unsigned int len)
{
	super_set_uuid(sb, uuid, len);
}

/* The key is for lockdep, one for all files: none of them takes a lock when it is read. */
void tesserafs_sysfs_attr_init(struct attribute *attribute)
{
	sysfs_attr_init(attribute);
}

int tesserafs_sysfs_emit_digest(char *to, const u8 *digest)
{
	return sysfs_emit(to, "sha256:%32phN\n", digest);
}

int tesserafs_sysfs_emit_number(char *to, u64 number)
{
	return sysfs_emit(to, "%llu\n", number);
}

void tesserafs_trace_decode(u64 image, u32 chunk, u32 stored, u32 raw)
{
	trace_tesserafs_decode(image, chunk, stored, raw);
}

void tesserafs_trace_failure(u64 image, const char *rule, unsigned int length, int error)
{
	trace_tesserafs_failure(image, rule, length, error);
}

void tesserafs_trace_read(u64 image, u32 chunk, u64 offset, u32 stored)
{
	trace_tesserafs_read(image, chunk, offset, stored);
}
