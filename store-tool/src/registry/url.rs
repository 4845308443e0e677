// SPDX-License-Identifier: GPL-2.0-or-later

//! URLs of registries, and those that they answer with.

use std::net::IpAddr;

use percent_encoding::{utf8_percent_encode, AsciiSet, NON_ALPHANUMERIC};
use tesserafs_image::text;
use ureq::http::Uri;

/// Bytes of a URL that an answer may have.
const URL_MAX: usize = 16 << 10;

/// Letters of a value in a query that stay.
const VALUE: &AsciiSet =
    &NON_ALPHANUMERIC.remove(b'-').remove(b'_').remove(b'.').remove(b'~').remove(b'/').remove(b':');

/// A value as it stands in a query or a form.
pub(super) fn value(text: &str) -> String {
    utf8_percent_encode(text, VALUE).to_string()
}

/// A URL with one more parameter.
pub(super) fn with_parameter(url: &str, key: &str, text: &str) -> String {
    let separator = if url.contains('?') { '&' } else { '?' };
    format!("{url}{separator}{key}={}", value(text))
}

/// A URL in messages: a query can hold secrets.
pub(super) fn shown(url: &str) -> String {
    let end = url.find(['?', '#']).unwrap_or(url.len());
    let mut shown = text::escape(&url.as_bytes()[..end]);
    // `user:password@` before the host is a secret, too.
    if let (Some(start), Some(at)) = (shown.find("://"), shown.find('@')) {
        let authority = start + 3;
        if !shown.get(authority..at).unwrap_or("/").contains('/') {
            shown.replace_range(authority..=at, "");
        }
    }
    shown
}

/// Scheme, host and port: what connections, certificates and secrets are for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Origin {
    pub(super) is_tls: bool,
    /// In lower case; brackets around an address of IPv6.
    pub(super) host: String,
    pub(super) port: u16,
}

impl Origin {
    /// That of an absolute URL of HTTP.
    pub(super) fn of(url: &str) -> Result<Self, String> {
        let refuse = || format!("{} is no URL of HTTP", shown(url));
        let uri: Uri = url.parse().map_err(|_| refuse())?;
        let is_tls = match uri.scheme_str() {
            Some("https") => true,
            Some("http") => false,
            _ => return Err(refuse()),
        };
        let host = uri.host().filter(|host| !host.is_empty()).ok_or_else(refuse)?.to_ascii_lowercase();
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err(refuse());
        }
        // It becomes the name of a folder with certificates.
        let is_name = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(&byte);
        if host.starts_with('.') || !host.bytes().all(is_name) {
            return Err(refuse());
        }
        let port = uri.port_u16().unwrap_or(if is_tls { 443 } else { 80 });
        Ok(Self { is_tls, host, port })
    }

    /// Whether it is this machine.
    pub(super) fn is_loopback(&self) -> bool {
        is_loopback(&self.host)
    }

    /// Host and port as directories of certificates are named.
    pub(super) fn names(&self) -> Vec<String> {
        let mut names = vec![format!("{}:{}", self.host, self.port)];
        if self.port == if self.is_tls { 443 } else { 80 } {
            names.push(self.host.clone());
        }
        names
    }
}

/// Whether a host, without its port, is this machine.
pub(super) fn is_loopback(host: &str) -> bool {
    let address = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    host == "localhost" || address.parse::<IpAddr>().is_ok_and(|address| address.is_loopback())
}

/// The URL that `location` means in the answer of `base`.
pub(super) fn resolve(base: &str, location: &str) -> Result<String, String> {
    let refuse = |why: &str| Err(format!("{}: found a Location that {why}", shown(base)));
    if location.len() > URL_MAX {
        return refuse("is longer than 16 KiB");
    }
    // Anything else is an error of the server, and nothing to send on.
    if !location.bytes().all(|byte| byte.is_ascii_graphic()) {
        return refuse("is no URL");
    }
    let scheme_end = base.find("://").map_or(0, |at| at + 3);
    let path_start = base[scheme_end..].find(['/', '?', '#']).map_or(base.len(), |at| scheme_end + at);
    let lower = location.to_ascii_lowercase();
    let url = if lower.starts_with("http://") || lower.starts_with("https://") {
        location.to_owned()
    } else if location.starts_with("//") {
        format!("{}{location}", &base[..scheme_end.saturating_sub(2)])
    } else if location.starts_with('/') {
        format!("{}{location}", &base[..path_start])
    } else if location.is_empty() || location.contains("://") {
        return refuse("is no URL of HTTP");
    } else {
        let path = base[path_start..].split(['?', '#']).next().unwrap_or_default();
        let folder = path.rfind('/').map_or("/", |at| &path[..=at]);
        format!("{}{folder}{location}", &base[..path_start])
    };
    let url = url.split('#').next().unwrap_or_default().to_owned();
    Origin::of(&url)?;
    Ok(url)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_location_is_resolved_against_the_url_that_answered_with_it() {
        let base = "https://registry.example:5000/v2/a/blobs/uploads/?x=1";
        for (location, url) in [
            ("https://s3.example/b?sig=1", "https://s3.example/b?sig=1"),
            ("//s3.example/b", "https://s3.example/b"),
            ("/v2/a/x?_state=1", "https://registry.example:5000/v2/a/x?_state=1"),
            ("x#fragment", "https://registry.example:5000/v2/a/blobs/uploads/x"),
        ] {
            assert_eq!(resolve(base, location).as_deref(), Ok(url));
        }
        assert_eq!(resolve("http://a", "/b").as_deref(), Ok("http://a/b"));
        let long = format!("/{}", "a".repeat(URL_MAX));
        for location in [
            "",
            "file:///etc/passwd",
            "ftp://a/b",
            "https://",
            "https://u:p@a/b",
            "https://../b",
            "/a b",
            "/a\r\nX: y",
            "/\u{e4}",
            &long,
        ] {
            let said = resolve(base, location).expect_err(location);
            assert!(text::is_plain(&said) && said.len() < 300, "{said}");
        }
    }

    #[test]
    fn no_secret_of_a_url_is_shown() {
        assert_eq!(shown("https://s3.example/b?X-Amz-Signature=secret"), "https://s3.example/b");
        assert_eq!(shown("https://me:secret@s3.example/b@c"), "https://s3.example/b@c");
        assert_eq!(shown("https://s3.example/b@c"), "https://s3.example/b@c");
        assert_eq!(shown("https://a/\u{1b}[m"), "https://a/\\033[m");
    }

    #[test]
    fn an_origin_is_scheme_host_and_port() {
        let of = |url| Origin::of(url).expect(url);
        assert_eq!(of("https://A.example/x"), of("https://a.example:443/y"));
        assert_ne!(of("https://a.example/"), of("http://a.example/"));
        assert_eq!(of("https://a.example").names(), ["a.example:443", "a.example"]);
        assert!(of("http://127.1.2.3:5000/").is_loopback() && of("http://[::1]/").is_loopback());
        assert!(!of("http://127.0.0.1.example/").is_loopback() && !of("http://10.0.0.1/").is_loopback());
    }
}
