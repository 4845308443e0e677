// SPDX-License-Identifier: GPL-2.0-or-later

//! A server that sends what is nearly HTTP, or nothing like it.

use std::io::{Read, Write};
use std::net::TcpListener;

use tesserafs_store::reference::Name;

use super::*;

/// Numbers that look like nothing.
struct Random(u32);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_mul(1_664_525).wrapping_add(1_013_904_223);
        (self.0 >> 8) as usize % limit
    }
}

/// Answers of a registry, each of which is right for some request.
const ANSWERS: [&str; 9] = [
    "HTTP/1.1 206 Partial Content\r\nContent-Range: bytes 10-19/100\r\nContent-Length: 10\r\n\r\n0123456789",
    "HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n",
    "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nabcde\r\nffffffffffffffff\r\nx",
    "HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Bearer realm=\"http://127.0.0.1:1/t\",service=\"s\"\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 307 Temporary Redirect\r\nLocation: /v2/x?y=z#a\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 202 Accepted\r\nLocation: /v2/u/1?_state=x\r\nRange: 0-9\r\nOCI-Chunk-Min-Length: 5\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 201 Created\r\nDocker-Content-Digest: sha256:00\r\nContent-Length: 0\r\n\r\n",
    "HTTP/1.1 429 Too Many\r\nRetry-After: 0\r\nContent-Length: 44\r\n\r\n{\"errors\":[{\"code\":\"TOO\",\"message\":\"\\u001b\"}]}",
    "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\nRange: 0-99999999999999999999\r\n\r\n",
];

fn broken(random: &mut Random) -> Vec<u8> {
    let mut answer = ANSWERS[random.below(ANSWERS.len())].as_bytes().to_vec();
    for _ in 0..random.below(4) {
        let at = random.below(answer.len());
        match random.below(4) {
            0 => answer[at] = random.below(256) as u8,
            1 => drop(answer.remove(at)),
            2 => answer.insert(at, b"\r\n:; \x00\xff9-"[random.below(9)]),
            _ => answer.truncate(at.max(1)),
        }
    }
    answer
}

#[test]
fn whatever_a_server_sends_is_an_error_or_an_answer() {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let host = listener.local_addr().expect("an address").to_string();
    std::thread::spawn(move || {
        let mut random = Random(7);
        for mut connection in listener.incoming().map_while(Result::ok) {
            let _ = connection.read(&mut [0; 4096]);
            // The client need not wait for all of it.
            let _ = connection.write_all(&broken(&mut random));
        }
    });
    let options = Options { tries: 1, ..options() };
    let reference = Reference::parse(&format!("{host}/team/app")).expect("a reference");
    let there = Blob { digest: sha256(b"x"), len: 100 };
    let (mut answers, mut errors) = (0, 0);
    let mut count = |error: Option<Error>| match error {
        None => answers += 1,
        Some(error) => {
            errors += 1;
            sentence(&error);
        }
    };
    for _ in 0..100 {
        let repository = Repository::open(&reference, &options).expect("a repository");
        let read = repository.read(&there, 10..20, &mut |_, offset, bytes| {
            assert!(offset + bytes.len() as u64 <= there.len);
            Ok(())
        });
        count(read.err());
        count(repository.manifest(&Name::Tag("x".into())).err());
        count(repository.blob_len(&there.digest).err());
        count(
            repository
                .upload(&there, &mut std::io::Cursor::new([0; 100]), &mut |had| assert!(had <= 100))
                .err(),
        );
        count(repository.put_manifest(&Name::Tag("x".into()), "a/b", b"{}").err());
    }
    eprintln!("{answers} answers, {errors} errors");
    assert!(answers > 5 && errors > 200);
}
