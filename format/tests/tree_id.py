#!/usr/bin/env python3
# SPDX-License-Identifier: GPL-2.0 OR MIT
"""The tesserafs tree ID of a directory, written from FORMAT.md alone ("4.3" below is its section 4.3).

usage: tree_id.py DIRECTORY          prints the tree ID (run as root: trusted.* xattrs and all files have to be readable)
       tree_id.py --inspect IMAGE    recomputes the tree ID, the Merkle root and the image ID of an image, and prints them;
                                     compares the stored bytes of each chunk with its digest
"""

import errno
import functools
import hashlib
import os
import re
import stat
import struct
import sys

BLOCK = 4096
ZEROS = bytes(BLOCK)
PIECE = 1 << 20  # bytes read at once; a multiple of BLOCK
REGULAR, DIRECTORY, SYMLINK, FIFO, SOCKET, WHITEOUT = range(1, 7)
TYPES = {stat.S_IFREG: REGULAR, stat.S_IFDIR: DIRECTORY, stat.S_IFLNK: SYMLINK, stat.S_IFIFO: FIFO, stat.S_IFSOCK: SOCKET}
XATTR_NAME = re.compile(rb"(user|trusted|security)\..+|system\.posix_acl_(access|default)", re.DOTALL)


class Error(Exception):
    pass


def need(condition, path, message):
    if not condition:
        raise Error(f"{os.fsdecode(path)!r}: {message}")


def region_bytes(tables):
    """Length of a region whose tables have these lengths, with its padding (section 2)."""
    end = 0
    for length in tables:
        end = end + -end % 64 + length  # a table begins at once where the one before ends at a multiple of 64
    return end + -end % BLOCK


def join_region(tables):
    out = bytearray()
    for table in tables:
        out += bytes(-len(out) % 64) + table
    return out + bytes(-len(out) % BLOCK)


# --- a directory -------------------------------------------------------------------------------------------------------


@functools.cache
def open_directory(path):
    return os.open(path, os.O_PATH | os.O_DIRECTORY)


def shorten(path):
    """The same path in at most PATH_MAX bytes; a tree may be deeper."""
    while len(path) > 4000:
        cut = path.rindex(b"/", 0, 4000)
        path = b"/proc/self/fd/%d/" % open_directory(path[:cut]) + path[cut + 1 :]
    return path


class Inode:
    def __init__(self, path, parent):
        self.path, self.parent = shorten(path), parent
        self.st = st = os.lstat(self.path)
        # 4.1: character device 0:0 is a whiteout, every other device is an error.
        if stat.S_ISCHR(st.st_mode) and st.st_rdev == 0:
            self.type = WHITEOUT
        else:
            device = "character" if stat.S_ISCHR(st.st_mode) else "block"
            number = f"{os.major(st.st_rdev)}:{os.minor(st.st_rdev)}"
            self.type = TYPES.get(stat.S_IFMT(st.st_mode))
            need(self.type, path, f"{device} device {number} cannot be represented")
        self.nlink = 2 if self.type == DIRECTORY else 0  # 4.3: counted over the tree, st_nlink is not used
        self.entries = []  # of a directory: (name, Inode)

    def mtime(self, limit):
        # The time is seconds + nanoseconds / 10^9 with nanoseconds >= 0, so a time before 1970 is rounded down.
        time = divmod(self.st.st_mtime_ns, 10**9)
        return time if limit is None else min(time, (limit, 0))  # 4.9: later by nanoseconds only is later, too

    def xattrs(self):
        """The set as the bytes of its entries and their number (4.6)."""
        try:
            names = sorted(os.fsencode(name) for name in os.listxattr(self.path, follow_symlinks=False))
        except OSError as error:
            if error.errno != errno.ENOTSUP:
                raise
            names = []
        need(sum(len(name) + 1 for name in names) <= 65536, self.path, "xattr names are too long together")
        out = bytearray()
        for name in names:
            need(XATTR_NAME.fullmatch(name) and len(name) <= 255, self.path, f"xattr {name!r} cannot be represented")
            value = os.getxattr(self.path, name, follow_symlinks=False)
            need(len(value) <= 65536, self.path, f"xattr {name!r} is too long")
            out += struct.pack("<IB3x", len(value), len(name)) + name + value
            out += bytes(-len(out) % 8)
        return bytes(out), len(names)

    def content(self):
        """The digest (4.7) and the number of blocks that are not zero (4.3)."""
        size = self.st.st_size
        fd = os.open(self.path, os.O_RDONLY | os.O_NOFOLLOW)
        try:
            if size > 1 << 36:
                return sparse_digest(fd, size, self.path)
            digest, blocks = hashlib.sha256(), 0
            for _, piece in pieces(fd, 0, size, self.path):
                digest.update(piece)
                blocks += sum(any(piece[at : at + BLOCK]) for at in range(0, len(piece), BLOCK))
            return digest.digest(), blocks
        finally:
            os.close(fd)


def pieces(fd, start, end, path):
    while start < end:
        piece = b""
        want = min(PIECE, end - start)  # never beyond the end: at 2^63-1 the kernel refuses that
        while len(piece) < want:
            more = os.pread(fd, want - len(piece), start + len(piece))
            need(more, path, "the file shrank")
            piece += more
        yield start, piece
        start += want


def data_ranges(fd, size):
    """Ranges with all bytes that are not zero, ascending, from block to block; neighbours may touch.

    SEEK_HOLE is not asked: on tmpfs, a hole at 2^63 overflows (Linux 6.18). There SEEK_DATA does not find the last block of
    a file of 2^63-1 bytes either, so that block always is a range."""
    last = (size - 1) - (size - 1) % BLOCK
    end = 0
    while end < last:
        try:
            data = os.lseek(fd, end, os.SEEK_DATA)
        except OSError as error:
            if error.errno != errno.ENXIO:
                raise
            break
        start = min(data - data % BLOCK, last)
        end = min(start + PIECE, last)
        yield start, end
    yield last, size


def sparse_digest(fd, size, path):
    """4.7. The holes of lseek save time only: a block of data may be all zero as well. A run is one of blocks
    each of which is not all zero, and may go on from one range to the next."""
    digest = hashlib.sha256(b"TESSRAFS-SPARSE\0" + struct.pack("<Q", size))
    run = end = blocks = 0  # the open run; empty where its ends are equal
    for first, behind in data_ranges(fd, size):
        for offset, piece in pieces(fd, first, behind, path):
            for at in range(0, len(piece), BLOCK):
                block = piece[at : at + BLOCK]
                if block == ZEROS[: len(block)]:
                    continue
                if run == end or end != offset + at:
                    if run != end:
                        digest.update(struct.pack("<Q", end - run))
                    run = end = offset + at
                    digest.update(struct.pack("<Q", run))
                digest.update(block)
                end += len(block)
                blocks += 1
    if run != end:
        digest.update(struct.pack("<Q", end - run))
    return bytes(byte ^ 0xFF for byte in digest.digest()), blocks


def read_tree(root):
    """All inodes in the order of their numbers (4.2)."""
    inodes = [Inode(root, None)]
    inodes[0].parent = inodes[0]
    need(inodes[0].type == DIRECTORY, root, "not a directory")
    seen = {}
    for directory in inodes:  # which grows meanwhile: breadth first
        if directory.type != DIRECTORY:
            continue
        for name in sorted(os.listdir(directory.path)):
            inode = Inode(os.path.join(directory.path, name), directory)
            if inode.type == DIRECTORY:
                directory.nlink += 1  # and one directory has one name, even where a bind mount shows it twice
                inodes.append(inode)
            else:
                key = inode.st.st_dev, inode.st.st_ino
                if key not in seen:
                    seen[key] = inode
                    inodes.append(inode)
                inode = seen[key]
                inode.nlink += 1
            directory.entries.append((name, inode))
    for number, inode in enumerate(inodes, 1):
        inode.number = number
    return inodes


def tree_id(root, limit):
    inodes = read_tree(root)
    records, entries, names, targets = bytearray(), bytearray(), bytearray(), bytearray()
    shared, shared_index = bytearray(), {}  # the attribute records
    sets, set_bytes, set_index = bytearray(), bytearray(), {}
    digests, content_index = bytearray(), {}
    for inode in inodes:
        size = start = extra = 0
        mode = 0o777 if inode.type == SYMLINK else stat.S_IMODE(inode.st.st_mode)
        if inode.type == DIRECTORY:
            base = len(names)
            size, start, extra = len(inode.entries) | base // 16 << 32, len(entries) // 8, inode.parent.number
            for name, child in inode.entries:
                entries += struct.pack("<II", child.number, len(names) - base | child.type << 29)
                names += name
            need(len(names) - base < 1 << 29, inode.path, "the names are too long together")
            entries += struct.pack("<II", 0, len(names) - base)  # 4.4: the fence
            names += bytes(-len(names) % 16)
        elif inode.type == SYMLINK:
            target = os.readlink(inode.path)
            need(1 <= len(target) <= 4095, inode.path, "the target is too long")
            size, start = len(target), len(targets)
            targets += target
        elif inode.type == REGULAR and inode.st.st_size:
            size = inode.st.st_size
            digest, extra = inode.content()
            start = content_index.setdefault(digest, len(content_index))
            if start == len(digests) // 32:
                digests += digest
        xattrs, count = inode.xattrs()
        if count and xattrs not in set_index:
            set_index[xattrs] = len(set_index)
            sets += struct.pack("<QII", len(set_bytes), len(xattrs), count)
            set_bytes += xattrs
        attributes = struct.pack("<BxHIII", inode.type, mode, inode.st.st_uid, inode.st.st_gid,
                                 set_index[xattrs] + 1 if count else 0)
        if attributes not in shared_index:
            shared_index[attributes] = len(shared_index)
            shared += attributes
        seconds, nanoseconds = inode.mtime(limit)
        need(0 <= seconds + 2**31 < 2**34, inode.path, "the mtime cannot be represented")
        records += struct.pack("<IIQQII", shared_index[attributes], inode.nlink, seconds + 2**31 << 30 | nanoseconds, size,
                               start, extra)
    descriptor = struct.pack("<8Q", len(inodes), len(shared_index), len(entries) // 8, len(names), len(targets),
                             len(set_index), len(set_bytes), len(digests) // 32)
    region = join_region([shared, records, entries, names, targets, sets, set_bytes, digests])
    return hashlib.sha256(descriptor + region).hexdigest()


# --- an image ----------------------------------------------------------------------------------------------------------


def chunk_digest(stored):
    """The digest of a chunk's stored bytes (section 5)."""
    half = (len(stored) + 1) // 2
    digests = [hashlib.sha256(part).digest() for part in (stored[:half], stored[len(stored) - half :])]
    return hashlib.sha256(b"".join(digests) + struct.pack("<Q", len(stored))).digest()


def inspect_chunks(image, records, digests):
    """Whether the chunks of pack 0, which begins in block 1, have their digests."""
    good = True
    for index, (place, stored) in enumerate(struct.iter_unpack("<QI4x", records)):
        if place >> 48:
            continue
        image.seek(BLOCK + place)
        if chunk_digest(image.read(stored & 0xFFFFFF)) != digests[index * 32 : index * 32 + 32]:
            print(f"chunk {index} does not have its digest", file=sys.stderr)
            good = False
    return good


def inspect(path):
    """Prints the three digests as computed; whether they, the hash region, and those of chunks, are those of the image."""
    with open(path, "rb") as image:
        head = image.read(BLOCK)
        need(len(head) == BLOCK and head[:8] == b"TESSRAFS", path, "not an image")
        version, incompat, image_bytes, tree_offset = struct.unpack_from("<8xI12xQQQ", head)
        need(version == 1 and incompat == 0, path, "unsupported")
        inodes, shared, dirents, names, targets, sets, set_bytes, contents = struct.unpack_from("<8Q", head, 0x40)
        packs, chunks, extents, annotations, annotation_bytes = struct.unpack_from("<5Q", head, 0x80)
        tree_bytes = region_bytes([shared * 16, inodes * 32, dirents * 8, names, targets, sets * 16, set_bytes, contents * 32])
        map_tables = [packs * 64, chunks * 16, chunks * 32, contents * 4, extents * 16, chunks * 32, annotations * 16,
                      annotation_bytes]
        map_bytes = region_bytes(map_tables)
        need(tree_offset % BLOCK == 0 and tree_offset + tree_bytes + map_bytes <= image_bytes, path, "corrupt superblock")

        tree = hashlib.sha256(head[0x40:0x80])
        level = bytearray()  # the digests of the metadata blocks
        image.seek(tree_offset)
        for offset in range(0, tree_bytes + map_bytes, BLOCK):
            block = image.read(BLOCK)
            need(len(block) == BLOCK, path, "the file is too short")
            level += hashlib.sha256(block).digest()
            if offset < tree_bytes:
                tree.update(block)
        hash_region = b""
        while True:  # section 6: one level at least, the last one has one block
            level += bytes(-len(level) % BLOCK)
            hash_region = bytes(level) + hash_region
            if len(level) == BLOCK:
                break
            level = bytearray().join(hashlib.sha256(level[at : at + BLOCK]).digest() for at in range(0, len(level), BLOCK))
        good = image_bytes == tree_offset + tree_bytes + map_bytes + len(hash_region)
        good = good and image.read(len(hash_region)) == hash_region
        if not good:
            print("the hash region is not that of the metadata", file=sys.stderr)
        tables = []
        for count in (1, 2):
            before = sum(map_tables[:count])
            image.seek(tree_offset + tree_bytes + before + -before % 64)
            tables.append(image.read(map_tables[count]))
        good = inspect_chunks(image, *tables) and good

    for name, digest, stored in (("tree ID", tree.digest(), head[0x100:0x120]),
                                 ("merkle root", hashlib.sha256(level).digest(), head[0xE0:0x100]),
                                 ("image ID", hashlib.sha256(head[:512]).digest(), head[0x200:0x220])):
        print(f"{name:12} sha256:{digest.hex()}")
        if stored != digest:
            print(f"{name}: the superblock has sha256:{stored.hex()}", file=sys.stderr)
            good = False
    return good


def main(arguments):
    try:
        if len(arguments) == 2 and arguments[0] == "--inspect":
            return 0 if inspect(arguments[1]) else 1
        if len(arguments) != 1 or arguments[0].startswith("-"):
            print(__doc__, file=sys.stderr)
            return 2
        limit = os.environ.get("SOURCE_DATE_EPOCH")
        need(limit is None or re.fullmatch("-?[0-9]+", limit), "SOURCE_DATE_EPOCH", f"not a number: {limit!r}")
        print("sha256:" + tree_id(os.fsencode(arguments[0]), limit and int(limit)))
        return 0
    except (Error, OSError) as error:
        print(f"tree_id.py: {error}", file=sys.stderr)
        return 1


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
