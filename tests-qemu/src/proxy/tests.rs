// SPDX-License-Identifier: GPL-2.0
//! Each fault, as a client of a small server meets it; and that nothing else changes what passes.

use std::io::Write as _;
use std::net::{SocketAddr, TcpStream};
use std::time::{Duration, Instant};

use super::*;
use crate::http::client::{get, send, Got};
use crate::http::{self, answer, Answer, Fields};

/// A folder with two files behind a proxy.
struct Place {
    _folder: tempfile::TempDir,
    _files: Server,
    proxy: Proxy,
    bytes: Vec<u8>,
}

const FILE: &str = "/v2/a/blobs/sha256:1";
const OTHER: &str = "/v2/a/blobs/sha256:2";

fn place(speed: Speed) -> Place {
    let folder = tempfile::tempdir().unwrap();
    let bytes: Vec<u8> = (0..100_000_u32).flat_map(u32::to_le_bytes).collect();
    let blobs = folder.path().join("v2/a/blobs");
    std::fs::create_dir_all(&blobs).unwrap();
    std::fs::write(blobs.join("sha256:1"), &bytes).unwrap();
    std::fs::write(blobs.join("sha256:2"), "another one").unwrap();
    let files = http::files(folder.path().to_owned()).unwrap();
    let proxy = Proxy::start(files.address(), speed).unwrap();
    Place { _folder: folder, _files: files, proxy, bytes }
}

impl Place {
    fn with(&self, fault: Fault) -> std::io::Result<Got> {
        self.proxy.follow(Plan::Rules(vec![Rule::blobs(fault)]));
        get(self.proxy.address(), FILE, Some("bytes=100-1099"))
    }
}

#[test]
fn what_passes_is_as_it_was_and_is_counted() {
    let place = place(Speed::default());
    let at = place.proxy.address();
    let whole = get(at, FILE, None).unwrap();
    assert!(whole.head.status == 200 && whole.body == place.bytes && whole.end.is_ok());
    let part = get(at, FILE, Some("bytes=100-1099")).unwrap();
    assert_eq!((part.head.status, &part.body[..]), (206, &place.bytes[100..1100]));
    let mut fields = Fields::default();
    fields.set("Authorization", "Basic eDp5");
    let head = send(at, "HEAD", FILE, fields, &[]).unwrap();
    assert_eq!(head.head.fields.get("content-length"), Some("400000"));
    let traffic = place.proxy.take();
    assert_eq!((traffic.requests.len(), traffic.connections, traffic.faults()), (3, 3, 0));
    assert_eq!(traffic.bytes("GET", "/blobs/"), 401_000);
    assert!((401_000..403_000).contains(&traffic.down), "{}", traffic.down);
    let last = traffic.of("HEAD", FILE).next().unwrap();
    assert_eq!((last.status, last.bytes, last.is_authorized), (Some(200), 0, true));
    // Each has a connection of its own, and the end of one may come after the next one's.
    let ranges: Vec<_> = traffic.requests.iter().filter_map(|request| request.range.as_deref()).collect();
    assert_eq!(ranges, ["bytes=100-1099"]);
    assert_eq!(place.proxy.take().connections, 0);
}

#[test]
fn a_connection_serves_many_requests() {
    let place = place(Speed::default());
    let mut stream = TcpStream::connect(place.proxy.address()).unwrap();
    let mut from = std::io::BufReader::new(stream.try_clone().unwrap());
    for _ in 0..3 {
        stream.write_all(format!("GET {OTHER} HTTP/1.1\r\nHost: x\r\n\r\n").as_bytes()).unwrap();
        let head = http::Response::read(&mut from).unwrap();
        let framing = http::Framing::of_response(&head, "GET").unwrap();
        let body = std::io::read_to_string(http::Body::new(&mut from, framing)).unwrap();
        assert_eq!(body, "another one");
    }
    let traffic = place.proxy.take();
    assert_eq!((traffic.requests.len(), traffic.connections), (3, 1));
}

#[test]
fn bodies_of_requests_pass_too() {
    let echo = Server::start(|stream| {
        let mut from = std::io::BufReader::new(stream.try_clone()?);
        let mut to = stream;
        while let Some(request) = http::Request::read(&mut from)? {
            let framing = http::Framing::of_request(&request)?;
            let body = std::io::read_to_string(http::Body::new(&mut from, framing))?;
            write!(to, "HTTP/1.1 201 Created\r\nContent-Length: {}\r\n\r\n{body}", body.len())?;
        }
        Ok(())
    })
    .unwrap();
    let proxy = Proxy::start(echo.address(), Speed::default()).unwrap();
    let mut fields = Fields::default();
    fields.set("Expect", "100-continue");
    let got = send(proxy.address(), "PATCH", "/upload", fields, b"some bytes").unwrap();
    assert_eq!((got.head.status, &got.body[..]), (201, &b"some bytes"[..]));
    proxy.follow(Plan::Rules(vec![Rule::new("/upload", Fault::CutRequest(4)).methods(&["PATCH"])]));
    assert!(send(proxy.address(), "PATCH", "/upload", Fields::default(), b"some bytes").is_err());
    // In pieces, as programs send whose bodies have no known length.
    let mut stream = TcpStream::connect(proxy.address()).unwrap();
    write!(
        stream,
        "PUT / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n2\r\nde\r\n0\r\n\r\n"
    )
    .unwrap();
    let mut from = std::io::BufReader::new(stream);
    let head = http::Response::read(&mut from).unwrap();
    assert_eq!(head.fields.get("content-length"), Some("5"));
    assert!(proxy.take().up > 150);
}

#[test]
fn bodies_are_cut_and_changed() {
    let place = place(Speed::default());
    let right = &place.bytes[100..1100];
    let cut = place.with(Fault::Cut(10)).unwrap();
    assert!(cut.end.is_err() && cut.body == right[..10]);
    assert_eq!(cut.head.fields.get("content-length"), Some("1000"));
    let truncated = place.with(Fault::Truncate(10)).unwrap();
    assert!(truncated.end.is_ok() && truncated.body == right[..10] && truncated.head.status == 206);
    let flipped = place.with(Fault::Flip(700)).unwrap();
    let differ: Vec<usize> = (0..1000).filter(|place| flipped.body[*place] != right[*place]).collect();
    assert_eq!(differ, [700]);
    let other = place.with(Fault::Other(OTHER.to_owned())).unwrap();
    assert_ne!(other.body, right);
    let endless = place.with(Fault::Endless).unwrap();
    assert!(endless.end.is_ok() && endless.body.len() == 1 << 20 && endless.head.status == 200);
}

#[test]
fn heads_lie() {
    let place = place(Speed::default());
    let right = &place.bytes[100..1100];
    let more = place.with(Fault::WrongLength(5)).unwrap();
    assert!(more.end.is_err() && more.body == right);
    let less = place.with(Fault::WrongLength(-5)).unwrap();
    assert!(less.end.is_ok() && less.body == right[..995]);
    let shifted = place.with(Fault::WrongRange(7)).unwrap();
    assert_eq!(shifted.head.fields.get("content-range"), Some("bytes 107-1106/400000"));
    let whole = place.with(Fault::Whole).unwrap();
    assert!(whole.head.status == 200 && whole.body == place.bytes);
}

#[test]
fn answers_are_others() {
    let place = place(Speed::default());
    let slow = place.with(Fault::Status(429, Some(3))).unwrap();
    assert_eq!((slow.head.status, slow.head.fields.get("retry-after")), (429, Some("3")));
    assert!(place.with(Fault::Hang).is_err());
    let to = SocketAddr::from(([127, 0, 0, 1], 9));
    let moved = place.with(Fault::Redirect(to)).unwrap();
    assert_eq!(moved.head.fields.get("location"), Some("http://127.0.0.1:9/v2/a/blobs/sha256:1"));
    let forged = place.with(Fault::Answer(200, "text/x".to_owned(), b"forged".to_vec())).unwrap();
    assert_eq!((&forged.body[..], forged.head.fields.get("content-type")), (&b"forged"[..], Some("text/x")));
    let file = place.with(Fault::File((*b"0123456789".repeat(200)).into())).unwrap();
    assert_eq!((file.head.status, file.body.len(), &file.body[..3]), (206, 1000, &b"012"[..]));
    let head = send(place.proxy.address(), "HEAD", FILE, Fields::default(), &[]);
    assert!(head.is_ok_and(|head| head.head.fields.get("content-length") == Some("400000")));
    place.proxy.follow(Plan::Rules(vec![Rule::blobs(Fault::File((*b"01").into())).methods(&["HEAD"])]));
    let head = send(place.proxy.address(), "HEAD", FILE, Fields::default(), &[]);
    assert!(head.is_ok_and(|head| head.head.fields.get("content-length") == Some("2")));
    let begin = Instant::now();
    let stalled = place.with(Fault::Stall(Duration::from_millis(300))).unwrap();
    assert!(stalled.body == place.bytes[100..1100] && begin.elapsed() < Duration::from_millis(250));
    place.proxy.follow(Plan::Rules(vec![Rule::blobs(Fault::Stall(Duration::from_millis(300)))]));
    let stalled = get(place.proxy.address(), FILE, None).unwrap();
    assert!(stalled.body == place.bytes && begin.elapsed() >= Duration::from_millis(300));
}

#[test]
fn a_line_has_its_delay_and_its_bandwidth() {
    let delay = Duration::from_millis(30);
    let place = place(Speed { delay, bits_per_second: Some(16_000_000) });
    let begin = Instant::now();
    std::thread::scope(|scope| {
        for _ in 0..2 {
            scope.spawn(|| get(place.proxy.address(), FILE, None).unwrap());
        }
    });
    // 800 kB at 2 MB/s, after one delay.
    let seconds = begin.elapsed().as_secs_f64();
    assert!((0.42..2.0).contains(&seconds), "{seconds}");
}

#[test]
fn random_faults_end_and_their_plan_is_kept() {
    let place = place(Speed::default());
    let slow = answer::server(|_| Answer::bytes(200, "x")).unwrap();
    let dead = SocketAddr::from(([127, 0, 0, 1], 1));
    for seed in 0..20 {
        let random = Random::new(seed, vec![OTHER.to_owned()], slow.address(), dead);
        place.proxy.follow(Plan::Random(Box::new(random)));
        for _ in 0..10 {
            let _ = get(place.proxy.address(), FILE, Some("bytes=0-99"));
        }
    }
    assert!(place.proxy.take().faults() > 15);
    place.proxy.follow(Plan::Honest);
    assert_eq!(get(place.proxy.address(), FILE, None).unwrap().body, place.bytes);
}
