/* SPDX-License-Identifier: GPL-2.0 */
/*
 * One-line wrappers of what Rust cannot call by itself: static inline functions, macros and
 * variadic functions. No logic lives here. Alphabetical; see helpers.c.
 */

#ifndef TESSERAFS_HELPERS_H
#define TESSERAFS_HELPERS_H

#include <linux/types.h>

struct address_space;
struct attribute;
struct cred;
struct dir_context;
struct file;
struct folio;
struct fs_context;
struct fs_parameter;
struct inode;
struct iov_iter;
struct kiocb;
struct key;
struct kmem_cache;
struct kobject;
struct ratelimit_state;
struct readahead_control;
struct seq_file;
struct shrinker;
struct super_block;
struct user_namespace;
struct vm_fault;
struct work_struct;
struct workqueue_struct;

/*
 * The answers of tesserafs_fs_parse() for `source` and `packdir`; every other option is read by its name; flags
 * have no value.
 */
#define TESSERAFS_OPT_OTHER	0
#define TESSERAFS_OPT_SOURCE	1
#define TESSERAFS_OPT_FLAG	2
#define TESSERAFS_OPT_PACKDIR	3

extern const struct fs_parameter_spec tesserafs_fs_parameters[];
extern struct ratelimit_state tesserafs_shared_ratelimit;

struct workqueue_struct *tesserafs_alloc_helpers(int limit);
struct inode *tesserafs_alloc_inode_sb(struct super_block *sb, struct kmem_cache *cache);
void *tesserafs_alloc_pages_exact(size_t size, gfp_t flags);
unsigned int tesserafs_bdev_dma_alignment(struct file *bdev_file);
unsigned int tesserafs_bdev_logical_block_size(struct file *bdev_file);
void tesserafs_cache_no_acl(struct inode *inode);
bool tesserafs_capable_noaudit(int cap);
void tesserafs_count_major_fault(void);
void tesserafs_destroy_work_on_stack(struct work_struct *work);
bool tesserafs_dir_emit(struct dir_context *ctx, const char *name, int namelen, u64 ino,
			unsigned int type);
bool tesserafs_dir_emit_dots(struct file *file, struct dir_context *ctx);
bool tesserafs_fatal_signal_pending(void);
bool tesserafs_fault_has_advice(const struct vm_fault *vmf);
bool tesserafs_fault_may_unlock(const struct vm_fault *vmf);
bool tesserafs_fault_was_tried(const struct vm_fault *vmf);
void tesserafs_fc_log(struct fs_context *fc, char level, const char *message);
bool tesserafs_fc_log_is_printk(struct fs_context *fc);
bool tesserafs_fault_must_not_wait(const struct vm_fault *vmf);
bool tesserafs_file_has_page_cache(const struct file *file);
bool tesserafs_file_is_dax(const struct file *file);
bool tesserafs_file_is_filled_on_access(const struct file *file);
struct file *tesserafs_file_open_layer(const struct file *file, int flags, const struct cred *cred);
ssize_t tesserafs_file_read_iter(struct kiocb *iocb, struct iov_iter *iter);
void tesserafs_file_set_no_access_perm(struct file *file);
void tesserafs_file_set_noatime(struct file *file);
int tesserafs_file_stack_depth(const struct file *file);
struct folio *tesserafs_filemap_add_new_folio(struct address_space *mapping, unsigned long index,
					      unsigned int order);
struct folio *tesserafs_filemap_get_folio(struct address_space *mapping, unsigned long index);
struct folio *tesserafs_filemap_get_or_add_folio(struct address_space *mapping, unsigned long index);
void tesserafs_filemap_invalidate_lock_shared(struct address_space *mapping);
void tesserafs_filemap_invalidate_unlock_shared(struct address_space *mapping);
void tesserafs_flush_dcache_folio(struct folio *folio);
void *tesserafs_folio_address(struct folio *folio);
void tesserafs_folio_clear_readahead(struct folio *folio);
struct inode *tesserafs_folio_inode(struct folio *folio);
int tesserafs_folio_lock_to_fill(struct folio *folio, struct address_space *mapping);
struct address_space *tesserafs_folio_mapping(struct folio *folio);
loff_t tesserafs_folio_pos(struct folio *folio);
void tesserafs_folio_put(struct folio *folio);
size_t tesserafs_folio_size(struct folio *folio);
bool tesserafs_folio_test_uptodate(const struct folio *folio);
bool tesserafs_fs_parameter_is_file(struct fs_parameter *param);
int tesserafs_fs_parse(struct fs_context *fc, struct fs_parameter *param);
void tesserafs_i_gid_write(struct inode *inode, gid_t gid);
loff_t tesserafs_i_size_read(const struct inode *inode);
void tesserafs_i_size_write(struct inode *inode, loff_t size);
void tesserafs_i_uid_write(struct inode *inode, uid_t uid);
struct user_namespace *tesserafs_i_user_ns(const struct inode *inode);
void tesserafs_init_sync_kiocb(struct kiocb *kiocb, struct file *file);
void tesserafs_init_work_onstack(struct work_struct *work, void (*func)(struct work_struct *work));
int tesserafs_inode_lock_killable(struct inode *inode);
void tesserafs_inode_set_cached_link(struct inode *inode, char *link, int linklen);
void tesserafs_inode_set_mapping(struct inode *inode, struct address_space *mapping);
void tesserafs_inode_set_times(struct inode *inode, time64_t sec, long nsec);
bool tesserafs_inode_state_is_new(struct inode *inode);
void tesserafs_inode_unlock(struct inode *inode);
size_t tesserafs_iov_iter_count(const struct iov_iter *iter);
struct key *tesserafs_keyring_alloc(const char *description);
struct kmem_cache *tesserafs_kmem_cache_create(const char *name, unsigned int size,
					       void (*ctor)(void *));
int tesserafs_kobject_add_device(struct kobject *kobj, struct kobject *parent, dev_t device);
unsigned int tesserafs_mapping_max_folio_order(const struct address_space *mapping);
void tesserafs_mapping_set_large_folios(struct inode *inode);
void tesserafs_memalloc_restore(unsigned int flags);
unsigned int tesserafs_memalloc_nofs_save(void);
unsigned int tesserafs_memalloc_save(unsigned int scope);
unsigned int tesserafs_memalloc_scope(void);
unsigned int tesserafs_num_online_cpus(void);
unsigned int tesserafs_num_possible_cpus(void);
const struct cred *tesserafs_override_creds(const struct cred *cred);
int tesserafs_put_user_char(char value, char __user *to);
int tesserafs_put_user_int(int value, int __user *to);
void tesserafs_ratelimit_init(struct ratelimit_state *state);
bool tesserafs_ratelimit(struct ratelimit_state *state);
struct folio *tesserafs_readahead_folio(struct readahead_control *rac);
size_t tesserafs_readahead_length(const struct readahead_control *rac);
loff_t tesserafs_readahead_pos(const struct readahead_control *rac);
void tesserafs_release_fault_lock(struct vm_fault *vmf);
bool tesserafs_require_signatures(void);
void tesserafs_revert_creds(const struct cred *cred);
bool tesserafs_sb_is_anon(const struct super_block *sb);
void tesserafs_seq_show_packdir(struct seq_file *seq, const char *path);
void tesserafs_set_invalidate_lock_class(struct inode *inode, int depth, bool meta);
struct shrinker *tesserafs_shrinker_alloc(const char *name);
void tesserafs_super_get_passive(struct super_block *sb);
void tesserafs_super_lock_shared(struct super_block *sb);
unsigned int tesserafs_super_passive_count(const struct super_block *sb);
void tesserafs_super_set_sysfs_name(struct super_block *sb);
void tesserafs_super_set_uuid(struct super_block *sb, const u8 *uuid, unsigned int len);
void tesserafs_sysfs_attr_init(struct attribute *attribute);
int tesserafs_sysfs_emit_digest(char *to, const u8 *digest);
int tesserafs_sysfs_emit_number(char *to, u64 number);
void tesserafs_trace_decode(u64 image, u32 chunk, u32 stored, u32 raw);
void tesserafs_trace_failure(u64 image, const char *rule, unsigned int length, int error);
void tesserafs_trace_read(u64 image, u32 chunk, u64 offset, u32 stored);

#endif /* TESSERAFS_HELPERS_H */
