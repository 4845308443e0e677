// SPDX-License-Identifier: GPL-2.0

//! From files to stored chunks, on all processors, in an order that does not depend on them.
//!
//! Three parties share the work:
//!
//! - the *walk*, one thread, names the files in canonical order;
//! - *workers* read files in that order, hash and cut them, and compress chunks whose raw bytes nobody has met yet;
//! - the *sequencer*, the caller's thread, takes what the workers found, file after file in canonical order: it knows which
//!   contents and chunks are new, fills groups, numbers chunks and writes them.
//!
//! So what is stored, and where, is a function of the tree and the profile. Only the thread that compresses a
//! chunk, and the time at which it does, are not.
//!
//! Memory: windows of files and compressed chunks that cannot be written yet are counted against a budget. A worker that wants
//! to read more waits while it is spent, except for the file that the sequencer waits for: that file makes
//! progress, so everything does.

use std::collections::{HashMap, VecDeque};
use std::io;
use std::ops::Range;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, OnceLock, PoisonError};
use std::thread;

use sha2::{Digest as _, Sha256};
use tesserafs_format::chunk::Chunk;
use tesserafs_format::extent::HOLE;
use tesserafs_format::limits::{FRAME_BLOCK, INDEX_MAX, PLAIN_DIGEST_MAX};
use tesserafs_format::raw::{RawChunk, RawExtent};
use tesserafs_format::{chunk_digest, x86, ChunkIndex, Codec, Digest, PackIndex, Profile};
use zstd_safe::{CCtx, CParameter, ParamSwitch};

use crate::chunker::{ContentHasher, Cutter, FastCdc, Group, GroupEnd, Piece, Summary};
use crate::error::{Error, Result};
use crate::progress::Progress;
use crate::source::{FileTask, OpenFile, Source, Walked};

/// Bytes that a worker reads of a file at a time.
pub const WINDOW: usize = 1 << 20;

/// Bytes that the file the sequencer waits for may have in flight beyond the budget.
const HEAD_EXTRA: u64 = 8 << 20;

/// So many pieces of news wake the sequencer.
const NEWS: u64 = 16;

/// The index of a chunk that has none yet.
const UNNUMBERED: u32 = u32::MAX;

/// Where stored chunks go: pack 0.
pub trait PackWriter {
    /// Appends bytes.
    fn append(&mut self, bytes: &[u8]) -> Result<()>;
}

/// The map of an image: everything but the bytes.
#[derive(Debug, Default)]
pub struct Map {
    /// Content index of each regular file with bytes, with its inode, by inode.
    pub files: Vec<(u32, u32)>,
    /// Digests of the contents.
    pub content_digests: Vec<Digest>,
    /// Blocks of the contents that are not all zero.
    pub content_blocks: Vec<u32>,
    /// First extents of the contents.
    pub content_map: Vec<u32>,
    /// Extents.
    pub extents: Vec<RawExtent>,
    /// Chunks.
    pub chunks: Vec<RawChunk>,
    /// Digests of the stored chunks.
    pub chunk_digests: Vec<Digest>,
    /// Digests of the raw chunks.
    pub raw_digests: Vec<Digest>,
    /// Bytes of the pack.
    pub pack_bytes: u64,
    /// Bytes of holes in contents whose digest is over all of their bytes.
    pub plain_hole_bytes: u64,
    /// The figures.
    pub figures: Figures,
}

/// Figures that the encoder found.
#[derive(Clone, Copy, Debug, Default, serde::Serialize)]
pub struct Figures {
    /// Bytes of all files; of a hard-linked one once.
    pub raw_bytes: u64,
    /// Bytes of distinct contents.
    pub content_bytes: u64,
    /// Of those, bytes in holes.
    pub hole_bytes: u64,
    /// Bytes of distinct chunks before compression.
    pub chunk_raw_bytes: u64,
    /// Bytes of chunks after compression.
    pub stored_bytes: u64,
    /// Files whose bytes another file has too.
    pub duplicate_files: u64,
    /// Their bytes.
    pub duplicate_bytes: u64,
    /// Chunks that were cut and are another one.
    pub duplicate_chunks: u64,
    /// Their bytes before compression.
    pub duplicate_chunk_bytes: u64,
    /// Chunks that are groups.
    pub groups: u64,
    /// Contents in groups.
    pub grouped_contents: u64,
    /// Chunks that compression does not make smaller.
    pub plain_chunks: u64,
    /// Chunks of x86 code, compressed after the filter.
    pub filtered_chunks: u64,
}

/// How much to use.
#[derive(Clone, Copy, Debug)]
pub struct Resources {
    /// Threads that read, hash and compress.
    pub threads: usize,
    /// Bytes in flight.
    pub budget: u64,
}

/// Encodes the files of a source, and walks it; chunks go to `pack`.
pub fn encode<S: Source>(
    source: &S,
    profile: &Profile,
    resources: Resources,
    pack: &mut dyn PackWriter,
    progress: &dyn Progress,
) -> Result<(Walked, Map)> {
    let shared = Shared {
        state: Mutex::new(State::new()),
        to_sequencer: Bell::default(),
        flight: Arc::new(Flight::default()),
        budget: resources.budget,
        threads: resources.threads,
        news: AtomicU64::new(0),
        stop: AtomicBool::new(false),
        profile: *profile,
    };
    thread::scope(|scope| {
        let shared = &shared;
        let walk = move || {
            let result = source.walk(&mut |task| {
                if shared.stopped() {
                    return Err(Error::Stopped);
                }
                progress.found(task.size);
                let mut state = shared.state();
                let seq = state.found;
                state.found += 1;
                state.tasks.push_back((seq, task));
                drop(state);
                shared.flight.bell.ring();
                Ok(())
            });
            let mut state = shared.state();
            state.walked = true;
            let walked = result.map_err(|error| state.fail(error)).ok();
            drop(state);
            match &walked {
                Some(_) => shared.ring_all(),
                None => shared.stop(),
            }
            walked
        };
        let no_thread = |error: io::Error| Error::io("start a thread of", "the program".as_ref())(error);
        let walk = thread::Builder::new().spawn_scoped(scope, walk).map_err(no_thread)?;
        for number in 0..resources.threads {
            let worker = move || {
                // A worker that panics must not leave the others waiting for it.
                let guard = StopOnPanic(shared);
                if let Err(error) = Worker::new(shared).and_then(|worker| worker.run(source, progress)) {
                    shared.state().fail(error);
                    shared.stop();
                }
                std::mem::forget(guard);
            };
            // Where the system gives no more threads, those that there are do all of it.
            if let Err(error) = thread::Builder::new().spawn_scoped(scope, worker) {
                if number == 0 {
                    shared.state().fail(no_thread(error));
                    shared.stop();
                }
                break;
            }
        }
        let guard = StopOnPanic(shared);
        let sequenced = Sequencer::new(shared, pack).run();
        std::mem::forget(guard);
        shared.stop();
        let walked = walk.join().unwrap_or_else(|panic| std::panic::resume_unwind(panic));
        if let Some(error) = shared.state().error.take() {
            return Err(error);
        }
        let map = sequenced?;
        // A walk that failed has left its error.
        Ok((walked.ok_or(Error::Stopped)?, map))
    })
}

/// Lets everybody end when one thread panics; the scope then passes the panic on.
struct StopOnPanic<'a, F>(&'a Shared<F>);

impl<F> Drop for StopOnPanic<'_, F> {
    fn drop(&mut self) {
        self.0.stop();
    }
}

/// Wakes threads that wait for a change, without losing one: read the count, look around, wait while the count stands.
#[derive(Debug, Default)]
struct Bell {
    state: Mutex<Rung>,
    waiters: Condvar,
}

#[derive(Debug, Default)]
struct Rung {
    count: u64,
    waiting: usize,
}

impl Bell {
    fn state(&self) -> MutexGuard<'_, Rung> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn count(&self) -> u64 {
        self.state().count
    }

    fn ring(&self) {
        let mut state = self.state();
        state.count += 1;
        // A notification without a waiter is a system call all the same.
        if state.waiting > 0 {
            self.waiters.notify_all();
        }
    }

    fn wait(&self, seen: u64) {
        let mut state = self.state();
        state.waiting += 1;
        while state.count == seen {
            state = self.waiters.wait(state).unwrap_or_else(PoisonError::into_inner);
        }
        state.waiting -= 1;
    }
}

/// Bytes in flight, and the bell that workers wait for.
#[derive(Debug, Default)]
struct Flight {
    bytes: AtomicU64,
    bell: Bell,
}

/// Bytes in flight; they land when this is dropped.
#[derive(Debug)]
struct Permit {
    flight: Arc<Flight>,
    file: Arc<AtomicU64>,
    bytes: u64,
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.file.fetch_sub(self.bytes, Ordering::SeqCst);
        self.flight.bytes.fetch_sub(self.bytes, Ordering::SeqCst);
        self.flight.bell.ring();
    }
}

/// Bytes of a file that chunks refer to.
#[derive(Debug)]
struct Window {
    bytes: Arc<Vec<u8>>,
    _permit: Permit,
}

/// A chunk to hash and compress.
#[derive(Debug)]
struct Job {
    window: Arc<Window>,
    range: Range<usize>,
    /// The digest of its raw bytes: known beforehand, or for the job to find.
    digest: Arc<OnceLock<Digest>>,
    /// Nobody else may compress the chunk.
    claimed: bool,
}

/// News about a file, from a worker to the sequencer.
#[derive(Debug)]
enum Event {
    Chunk {
        start: u64,
        len: u32,
        digest: Arc<OnceLock<Digest>>,
    },
    Hole {
        start: u64,
    },
    /// The whole of a small content.
    Small {
        window: Arc<Window>,
    },
    /// The content is complete.
    End(Summary),
}

/// A chunk after compression.
#[derive(Debug)]
struct Stored {
    bytes: StoredBytes,
    codec: Codec,
    raw_len: u32,
    digest: Digest,
    _permit: Permit,
}

/// Where the bytes of a chunk after compression are.
#[derive(Debug)]
enum StoredBytes {
    Compressed(Vec<u8>),
    /// Where they were read.
    Plain(Arc<Window>, Range<usize>),
}

impl Stored {
    fn bytes(&self) -> &[u8] {
        match &self.bytes {
            StoredBytes::Compressed(bytes) => bytes,
            StoredBytes::Plain(window, range) => &window.bytes[range.clone()],
        }
    }
}

/// How far a chunk is.
#[derive(Debug)]
enum Progressed {
    /// A job for it waits.
    Unclaimed,
    /// Somebody compresses it.
    Claimed,
    Ready(Box<Stored>),
    Written,
}

#[derive(Debug)]
struct ChunkState {
    index: u32,
    stored: Progressed,
}

/// A file that is being read: the events that the sequencer has not taken yet.
#[derive(Debug)]
struct FileEvents {
    ino: u32,
    size: u64,
    events: VecDeque<Event>,
}

struct State<F> {
    /// Files that no worker took yet.
    tasks: VecDeque<(u64, FileTask<F>)>,
    /// Number of files that the walk found.
    found: u64,
    /// The walk is over.
    walked: bool,
    /// Chunks that no worker took yet.
    jobs: VecDeque<Job>,
    /// Files that workers took and the sequencer has not finished, from `head`.
    files: VecDeque<FileEvents>,
    /// The file that the sequencer takes from.
    head: u64,
    /// Chunks by the digest of their raw bytes.
    chunks: HashMap<Digest, ChunkState>,
    /// Contents that the sequencer met.
    contents: HashMap<Digest, u32>,
    /// The first error.
    error: Option<Error>,
}

impl<F> State<F> {
    fn new() -> Self {
        Self {
            tasks: VecDeque::new(),
            found: 0,
            walked: false,
            jobs: VecDeque::new(),
            files: VecDeque::new(),
            head: 0,
            chunks: HashMap::new(),
            contents: HashMap::new(),
            error: None,
        }
    }

    /// Claims a chunk; whether nobody had before.
    fn claim(&mut self, digest: Digest) -> bool {
        let unclaimed = ChunkState { index: UNNUMBERED, stored: Progressed::Unclaimed };
        let chunk = self.chunks.entry(digest).or_insert(unclaimed);
        let first = matches!(chunk.stored, Progressed::Unclaimed);
        if first {
            chunk.stored = Progressed::Claimed;
        }
        first
    }

    fn fail(&mut self, error: Error) {
        self.error.get_or_insert(error);
    }
}

/// The state that the threads share.
struct Shared<F> {
    state: Mutex<State<F>>,
    to_sequencer: Bell,
    flight: Arc<Flight>,
    budget: u64,
    threads: usize,
    news: AtomicU64,
    stop: AtomicBool,
    profile: Profile,
}

impl<F> Shared<F> {
    fn state(&self) -> MutexGuard<'_, State<F>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn ring_all(&self) {
        self.to_sequencer.ring();
        self.flight.bell.ring();
    }

    /// Tells the sequencer that there may be something for it, now and then: waking it for each file would
    /// cost more than its work. A worker that goes to sleep rings in any case.
    fn nudge(&self) {
        let news = self.news.fetch_add(1, Ordering::Relaxed);
        if news % NEWS == 0 || self.flight.bytes.load(Ordering::Relaxed) > self.budget / 2 {
            self.to_sequencer.ring();
        }
    }

    fn stop(&self) {
        self.stop.store(true, Ordering::SeqCst);
        self.ring_all();
    }

    fn stopped(&self) -> bool {
        self.stop.load(Ordering::SeqCst)
    }

    /// Counts bytes as in flight, whatever the budget says.
    fn permit(&self, bytes: u64, file: &Arc<AtomicU64>) -> Permit {
        self.flight.bytes.fetch_add(bytes, Ordering::SeqCst);
        file.fetch_add(bytes, Ordering::SeqCst);
        Permit { flight: self.flight.clone(), file: file.clone(), bytes }
    }
}

/// SHA-256 by the `sha2` crate.
#[derive(Clone, Copy, Debug)]
pub struct Sha2;

impl tesserafs_format::Sha256 for Sha2 {
    fn sha256(bytes: &[u8]) -> Digest {
        sha256(bytes)
    }
}

/// SHA-256 of bytes in memory.
pub fn sha256(bytes: &[u8]) -> Digest {
    Digest(Sha256::digest(bytes).into())
}

/// A thread that reads, hashes, cuts and compresses.
struct Worker<'a, F> {
    shared: &'a Shared<F>,
    compressor: CCtx<'static>,
    scratch: Vec<u8>,
    filtered: Vec<u8>,
    cdc: FastCdc,
}

impl<'a, F: Send> Worker<'a, F> {
    fn new(shared: &'a Shared<F>) -> Result<Self> {
        let mut compressor = CCtx::try_create().ok_or(Error::Compress("out of memory"))?;
        let parameters = [
            CParameter::CompressionLevel(shared.profile.level as i32),
            CParameter::MaxBlockSize(FRAME_BLOCK),
            CParameter::UseBlockSplitter(ParamSwitch::Disable),
        ];
        for parameter in parameters {
            let set = compressor.set_parameter(parameter);
            set.map_err(|code| Error::Compress(zstd_safe::get_error_name(code)))?;
        }
        let cdc = FastCdc::new(&shared.profile);
        Ok(Self { shared, compressor, scratch: Vec::new(), filtered: Vec::new(), cdc })
    }

    fn run<S: Source<File = F>>(mut self, source: &S, progress: &dyn Progress) -> Result<()> {
        let shared = self.shared;
        loop {
            // Before anything is looked at, `stopped` too: any later event changes the count.
            let seen = shared.flight.bell.count();
            if shared.stopped() {
                return Ok(());
            }
            if self.run_job()? {
                continue;
            }
            if shared.flight.bytes.load(Ordering::SeqCst) < shared.budget {
                if let Some((seq, task)) = self.take_task() {
                    self.read(source, seq, &task, progress)?;
                    continue;
                }
            }
            shared.to_sequencer.ring();
            shared.flight.bell.wait(seen);
        }
    }

    fn take_task(&self) -> Option<(u64, FileTask<F>)> {
        let mut state = self.shared.state();
        let (seq, task) = state.tasks.pop_front()?;
        state.files.push_back(FileEvents { ino: task.ino, size: task.size, events: VecDeque::new() });
        Some((seq, task))
    }

    /// Hashes and compresses a chunk, if there is one to do.
    fn run_job(&mut self) -> Result<bool> {
        let Some(job) = self.shared.state().jobs.pop_front() else { return Ok(false) };
        let shared = self.shared;
        let raw = &job.window.bytes[job.range.clone()];
        let digest = *job.digest.get_or_init(|| sha256(raw));
        let claimed = job.claimed || shared.state().claim(digest);
        if !claimed {
            shared.nudge();
            return Ok(true);
        }
        let codec = self.compress(raw)?;
        let nobody = Arc::new(AtomicU64::new(0));
        let stored = if self.scratch.len() < raw.len() {
            Stored {
                digest: chunk_digest::<Sha2>(&self.scratch),
                raw_len: raw.len() as u32,
                codec,
                bytes: StoredBytes::Compressed(self.scratch.as_slice().to_vec()),
                _permit: shared.permit(self.scratch.len() as u64, &nobody),
            }
        } else {
            Stored {
                digest: chunk_digest::<Sha2>(raw),
                raw_len: raw.len() as u32,
                codec: Codec::Plain,
                bytes: StoredBytes::Plain(job.window.clone(), job.range.clone()),
                _permit: shared.permit(0, &nobody),
            }
        };
        if let Some(chunk) = shared.state().chunks.get_mut(&digest) {
            chunk.stored = Progressed::Ready(Box::new(stored));
        }
        shared.nudge();
        Ok(true)
    }

    /// Compresses raw bytes into the scratch memory, by the codec that suits them.
    fn compress(&mut self, raw: &[u8]) -> Result<Codec> {
        let (codec, from) = if x86::is_worthwhile(raw) {
            self.filtered.clear();
            self.filtered.extend_from_slice(raw);
            x86::encode(&mut self.filtered);
            (Codec::ZstdX86, self.filtered.as_slice())
        } else {
            (Codec::Zstd, raw)
        };
        self.scratch.clear();
        self.scratch.reserve(zstd_safe::compress_bound(from.len()));
        self.compressor
            .compress2(&mut self.scratch, from)
            .map_err(|code| Error::Compress(zstd_safe::get_error_name(code)))?;
        Ok(codec)
    }

    /// Waits until `bytes` more may be in flight for file `seq`, and works on chunks meanwhile; `None` to stop.
    fn acquire(&mut self, bytes: u64, seq: u64, file: &Arc<AtomicU64>) -> Result<Option<Permit>> {
        let shared = self.shared;
        loop {
            let seen = shared.flight.bell.count();
            if shared.stopped() {
                return Ok(None);
            }
            // Chunks first, but so that some are left for the others while this thread reads.
            let jobs = shared.state().jobs.len();
            let fits = shared.flight.bytes.load(Ordering::SeqCst) + bytes <= shared.budget;
            let head = || shared.state().head == seq && file.load(Ordering::SeqCst) + bytes <= HEAD_EXTRA;
            if fits || head() {
                if jobs <= shared.threads {
                    return Ok(Some(shared.permit(bytes, file)));
                }
                self.run_job()?;
            } else if !self.run_job()? {
                shared.to_sequencer.ring();
                shared.flight.bell.wait(seen);
            }
        }
    }

    /// Hands what was found in a file to the sequencer, and its chunks to the workers.
    fn hand_over(&self, seq: u64, events: Vec<Event>, jobs: Vec<Job>) {
        let several = jobs.len() > 1;
        let mut state = self.shared.state();
        let head = state.head;
        if let Some(file) = state.files.get_mut((seq - head) as usize) {
            file.events.extend(events);
        }
        state.jobs.extend(jobs);
        drop(state);
        if several {
            self.shared.flight.bell.ring();
        }
        if seq == head {
            self.shared.nudge();
        }
    }

    /// Reads, hashes and cuts a file.
    fn read<S: Source<File = F>>(
        &mut self,
        source: &S,
        seq: u64,
        task: &FileTask<F>,
        progress: &dyn Progress,
    ) -> Result<()> {
        let shared = self.shared;
        let in_flight = Arc::new(AtomicU64::new(0));
        let mut open = source.open(task)?;
        let mut cutter = Cutter::new(self.cdc, &shared.profile);
        if task.size <= WINDOW as u64 {
            let Some(permit) = self.acquire(task.size, seq, &in_flight)? else { return Ok(()) };
            open.read(0..task.size, cutter.window())?;
            open.close()?;
            progress.read(task.size);
            self.finish_whole(seq, cutter, permit);
            return Ok(());
        }
        let mut pieces = Vec::new();
        let mut hasher = ContentHasher::new(task.size);
        let mut pos = 0;
        // The bytes that a window leaves to the next one, a chunk and some zeros at most, have no permit of
        // their own.
        while pos < task.size {
            let data = open.data(pos)?;
            let gap = data.start - pos;
            if gap > 0 {
                hasher.zeros(gap);
                if let Some(bytes) = cutter.skip_zeros(gap, &mut pieces) {
                    let Some(permit) = self.acquire(0, seq, &in_flight)? else { return Ok(()) };
                    self.deliver(seq, bytes, permit, std::mem::take(&mut pieces), None);
                }
                progress.read(gap);
                pos = data.start;
            }
            let end = data.end.min(pos + WINDOW as u64);
            let Some(permit) = self.acquire(end - pos, seq, &in_flight)? else { return Ok(()) };
            let window = cutter.window();
            let carried = window.len();
            open.read(pos..end, window)?;
            hasher.data(&window[carried..]);
            let bytes = cutter.advance(false, WINDOW, &mut pieces);
            self.deliver(seq, bytes, permit, std::mem::take(&mut pieces), None);
            progress.read(end - pos);
            pos = end;
        }
        open.close()?;
        let bytes = cutter.advance(true, 0, &mut pieces);
        let Some(permit) = self.acquire(0, seq, &in_flight)? else { return Ok(()) };
        self.deliver(seq, bytes, permit, pieces, Some(hasher.finish()));
        Ok(())
    }

    /// Goes on with a file that lies in one window.
    fn finish_whole(&self, seq: u64, mut cutter: Cutter, permit: Permit) {
        let summary = Summary::of(cutter.window());
        let known = self.shared.state().contents.contains_key(&summary.digest);
        if known {
            self.hand_over(seq, vec![Event::End(summary)], Vec::new());
            return;
        }
        let size = cutter.window().len();
        let mut pieces = Vec::new();
        let bytes = cutter.advance(true, 0, &mut pieces);
        let has_hole = pieces.iter().any(|piece| matches!(piece, Piece::Hole { .. }));
        if !has_hole && size <= self.shared.profile.small_max as usize {
            let window = Arc::new(Window { bytes, _permit: permit });
            self.hand_over(seq, vec![Event::Small { window }, Event::End(summary)], Vec::new());
        } else {
            self.deliver(seq, bytes, permit, pieces, Some(summary));
        }
    }

    /// Turns pieces of a window into events and jobs; `end` is the digest of a content that is complete.
    fn deliver(
        &self,
        seq: u64,
        bytes: Arc<Vec<u8>>,
        permit: Permit,
        pieces: Vec<Piece>,
        end: Option<Summary>,
    ) {
        let window = Arc::new(Window { bytes, _permit: permit });
        let mut events = Vec::with_capacity(pieces.len() + 1);
        let mut jobs = Vec::with_capacity(pieces.len());
        for piece in pieces {
            events.push(match piece {
                Piece::Hole { start } => Event::Hole { start },
                Piece::Chunk { start, range } => {
                    let digest = Arc::new(OnceLock::new());
                    // A content that is one chunk has the chunk's digest.
                    if let (Some(end), true) = (end, start == 0 && range == (0..window.bytes.len())) {
                        let _ = digest.set(end.digest);
                    }
                    let len = range.len() as u32;
                    jobs.push(Job { window: window.clone(), range, digest: digest.clone(), claimed: false });
                    Event::Chunk { start, len, digest }
                }
            });
        }
        events.extend(end.map(Event::End));
        self.hand_over(seq, events, jobs);
    }
}

/// The extents of the content that the sequencer is at.
#[derive(Default)]
struct Current {
    extents: Vec<RawExtent>,
    small: Option<Arc<Window>>,
}

/// Puts what the workers find in order.
struct Sequencer<'a, F> {
    shared: &'a Shared<F>,
    pack: &'a mut dyn PackWriter,
    map: Map,
    group: Group,
    /// Extents of the open group, to be pointed at its chunk.
    group_extents: Vec<usize>,
    /// The digest of the only content in the open group.
    group_digest: Option<Digest>,
    /// New chunks in order, not yet written.
    unwritten: VecDeque<Digest>,
    numbered: u32,
    current: Current,
}

impl<'a, F> Sequencer<'a, F> {
    fn new(shared: &'a Shared<F>, pack: &'a mut dyn PackWriter) -> Self {
        Self {
            shared,
            pack,
            map: Map::default(),
            group: Group::default(),
            group_extents: Vec::new(),
            group_digest: None,
            unwritten: VecDeque::new(),
            numbered: 0,
            current: Current::default(),
        }
    }

    fn run(mut self) -> Result<Map> {
        loop {
            let seen = self.shared.to_sequencer.count();
            if self.shared.stopped() {
                // Somebody else left the error.
                return Ok(self.map);
            }
            let mut busy = self.take_events()?;
            busy |= self.write_ready()?;
            if busy {
                continue;
            }
            if self.all_taken() {
                if !self.group.is_empty() {
                    self.close_group()?;
                    continue;
                }
                if self.unwritten.is_empty() {
                    return Ok(self.map);
                }
            }
            self.shared.to_sequencer.wait(seen);
        }
    }

    /// Whether no file will come any more.
    fn all_taken(&self) -> bool {
        let state = self.shared.state();
        state.walked && state.tasks.is_empty() && state.files.is_empty()
    }

    /// Takes events of files in order, as far as they are known.
    fn take_events(&mut self) -> Result<bool> {
        let mut busy = false;
        loop {
            let mut state = self.shared.state();
            let Some(file) = state.files.front_mut() else { return Ok(busy) };
            let (ino, size) = (file.ino, file.size);
            let unknown =
                |event: &Event| matches!(event, Event::Chunk { digest, .. } if digest.get().is_none());
            let known = file.events.iter().position(unknown).unwrap_or(file.events.len());
            let events: Vec<Event> = file.events.drain(..known).collect();
            if events.is_empty() {
                return Ok(busy);
            }
            let ended = matches!(events.last(), Some(Event::End(_)));
            if ended {
                state.files.pop_front();
                state.head += 1;
            }
            drop(state);
            busy = true;
            for event in events {
                self.take(event, ino, size)?;
            }
            if ended {
                // The next file is the one that may pass the budget now.
                self.shared.flight.bell.ring();
            }
        }
    }

    fn take(&mut self, event: Event, ino: u32, size: u64) -> Result<()> {
        match event {
            Event::Hole { start } => {
                self.current.extents.push(RawExtent {
                    file_offset: start.into(),
                    chunk: HOLE.into(),
                    chunk_offset: 0.into(),
                });
            }
            Event::Chunk { start, len, digest } => {
                let Some(digest) = digest.get() else { return Ok(()) };
                let chunk = self.number(digest, len)?;
                self.current.extents.push(RawExtent {
                    file_offset: start.into(),
                    chunk: chunk.into(),
                    chunk_offset: 0.into(),
                });
            }
            Event::Small { window } => self.current.small = Some(window),
            Event::End(summary) => self.end(summary, ino, size)?,
        }
        Ok(())
    }

    /// The index of a chunk: a new one unless its bytes were met before.
    fn number(&mut self, digest: &Digest, len: u32) -> Result<u32> {
        let mut state = self.shared.state();
        let chunk = state
            .chunks
            .entry(*digest)
            .or_insert(ChunkState { index: UNNUMBERED, stored: Progressed::Unclaimed });
        if chunk.index == UNNUMBERED {
            chunk.index = self.numbered;
            self.unwritten.push_back(*digest);
            self.map.raw_digests.push(*digest);
            self.map.figures.chunk_raw_bytes += u64::from(len);
            self.numbered = next_index(self.numbered)?;
        } else {
            self.map.figures.duplicate_chunks += 1;
            self.map.figures.duplicate_chunk_bytes += u64::from(len);
        }
        Ok(chunk.index)
    }

    /// Ends the content of a file.
    fn end(&mut self, summary: Summary, ino: u32, size: u64) -> Result<()> {
        let Summary { digest, blocks } = summary;
        let Current { mut extents, small } = std::mem::take(&mut self.current);
        self.map.figures.raw_bytes += size;
        let known = self.shared.state().contents.get(&digest).copied();
        if let Some(content) = known {
            self.map.figures.duplicate_files += 1;
            self.map.figures.duplicate_bytes += size;
            self.map.files.push((ino, content));
            return Ok(());
        }
        let content = self.map.content_digests.len() as u32;
        next_index(content)?;
        let blocks = u32::try_from(blocks)
            .map_err(|_| too_many("blocks of 4096 bytes that are not zero in a file"))?;
        self.shared.state().contents.insert(digest, content);
        self.map.figures.content_bytes += size;
        let holes = hole_bytes(&extents, size);
        self.map.figures.hole_bytes += holes;
        if size <= PLAIN_DIGEST_MAX {
            self.map.plain_hole_bytes += holes;
        }
        self.map.files.push((ino, content));
        self.map.content_digests.push(digest);
        self.map.content_blocks.push(blocks);
        self.map.content_map.push(self.map.extents.len() as u32);
        if let Some(window) = small {
            self.append_to_group(&window.bytes, &digest)?;
        } else {
            self.map.extents.append(&mut extents);
        }
        if self.map.extents.len() as u64 > INDEX_MAX {
            return Err(too_many("extents"));
        }
        Ok(())
    }

    fn append_to_group(&mut self, content: &[u8], digest: &Digest) -> Result<()> {
        let profile = &self.shared.profile;
        let extent = self.map.extents.len();
        if self.group.is_full(content.len(), profile) {
            self.close_group()?;
        }
        self.group_digest = self.group.is_empty().then_some(*digest);
        let (offset, end) = self.group.append(content, digest, profile);
        self.map.extents.push(RawExtent {
            file_offset: 0.into(),
            chunk: HOLE.into(),
            chunk_offset: offset.into(),
        });
        self.group_extents.push(extent);
        self.map.figures.grouped_contents += 1;
        if end == GroupEnd::Closed {
            self.close_group()?;
        }
        Ok(())
    }

    /// Stores the open group as a chunk.
    fn close_group(&mut self) -> Result<()> {
        let bytes = self.group.take();
        let digest = self.group_digest.take().unwrap_or_else(|| sha256(&bytes));
        self.map.figures.groups += 1;
        // Where a job for the same bytes waits, it need not any more.
        let claimed = self.shared.state().claim(digest);
        let chunk = self.number(&digest, bytes.len() as u32)?;
        for extent in self.group_extents.drain(..) {
            if let Some(extent) = self.map.extents.get_mut(extent) {
                extent.chunk = chunk.into();
            }
        }
        if claimed {
            let nobody = Arc::new(AtomicU64::new(0));
            let permit = self.shared.permit(bytes.len() as u64, &nobody);
            let range = 0..bytes.len();
            let window = Arc::new(Window { bytes: Arc::new(bytes), _permit: permit });
            self.shared.state().jobs.push_back(Job::claimed(window, range, digest));
            self.shared.flight.bell.ring();
        }
        Ok(())
    }

    /// Writes chunks as far as they are there, in order.
    fn write_ready(&mut self) -> Result<bool> {
        let mut busy = false;
        while let Some(digest) = self.unwritten.front() {
            let stored = {
                let mut state = self.shared.state();
                let Some(chunk) = state.chunks.get_mut(digest) else { return Ok(busy) };
                match std::mem::replace(&mut chunk.stored, Progressed::Written) {
                    Progressed::Ready(stored) => stored,
                    other => {
                        chunk.stored = other;
                        return Ok(busy);
                    }
                }
            };
            self.unwritten.pop_front();
            self.write(&stored)?;
            busy = true;
        }
        Ok(busy)
    }

    fn write(&mut self, stored: &Stored) -> Result<()> {
        let bytes = stored.bytes();
        let chunk = Chunk {
            index: ChunkIndex(self.map.chunks.len() as u32),
            pack: PackIndex(0),
            offset: self.map.pack_bytes,
            codec: stored.codec,
            stored_len: bytes.len() as u32,
            raw_len: stored.raw_len,
            digest: stored.digest,
        };
        self.map.chunks.push(chunk.to_raw().ok_or_else(|| too_many("bytes in a pack"))?);
        self.map.chunk_digests.push(stored.digest);
        self.map.pack_bytes += bytes.len() as u64;
        self.map.figures.stored_bytes += bytes.len() as u64;
        self.map.figures.plain_chunks += u64::from(stored.codec == Codec::Plain);
        self.map.figures.filtered_chunks += u64::from(stored.codec == Codec::ZstdX86);
        self.pack.append(bytes)
    }
}

impl Job {
    /// A job for a chunk whose digest is known, and that nobody else may compress.
    fn claimed(window: Arc<Window>, range: Range<usize>, digest: Digest) -> Self {
        Self { window, range, digest: Arc::new(OnceLock::from(digest)), claimed: true }
    }
}

/// Bytes in the holes of a content.
fn hole_bytes(extents: &[RawExtent], size: u64) -> u64 {
    let ends = extents.iter().skip(1).map(|next| next.file_offset.get()).chain([size]);
    let holes = extents.iter().zip(ends).filter(|(extent, _)| extent.chunk.get() == HOLE);
    holes.map(|(extent, end)| end - extent.file_offset.get()).sum()
}

fn next_index(index: u32) -> Result<u32> {
    let next = index + 1;
    if u64::from(next) > INDEX_MAX {
        return Err(too_many("chunks or contents"));
    }
    Ok(next)
}

fn too_many(what: &'static str) -> Error {
    Error::TooMany(what)
}
