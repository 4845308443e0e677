// SPDX-License-Identifier: GPL-2.0-or-later

//! The proxy of the environment.

use std::env;

use tesserafs_image::text;
use tesserafs_image::Error;
use ureq::Proxy;

use super::url::Origin;

/// The proxy by which a host is reached: `HTTPS_PROXY` or `HTTP_PROXY` by its scheme, or else `ALL_PROXY`, also in lower case, but for
/// this machine and for the hosts of `NO_PROXY`.
pub(super) fn for_origin(origin: &Origin) -> Result<Option<Proxy>, Error> {
    choose(origin, &|key| env::var(key).ok())
}

fn choose(origin: &Origin, get: &dyn Fn(&str) -> Option<String>) -> Result<Option<Proxy>, Error> {
    if origin.is_loopback() {
        return Ok(None);
    }
    let either = |key: &str| {
        let value = get(key).filter(|value| !value.is_empty());
        value
            .or_else(|| get(&key.to_lowercase()).filter(|value| !value.is_empty()))
            .map(|value| (key.to_owned(), value))
    };
    let Some((key, url)) =
        either(if origin.is_tls { "HTTPS_PROXY" } else { "HTTP_PROXY" }).or_else(|| either("ALL_PROXY"))
    else {
        return Ok(None);
    };
    // Its password is in it: it is not shown.
    let refuse = |error: ureq::Error| {
        let said = text::escape(error.to_string().as_bytes());
        Error::Refused(format!("the environment's {key} is no URL of a proxy: {said}"))
    };
    let proxy = Proxy::new(&url).map_err(refuse)?;
    let Some((_, exceptions)) = either("NO_PROXY") else { return Ok(Some(proxy)) };
    let mut with = Proxy::builder(proxy.protocol()).host(proxy.host()).port(proxy.port());
    if let Some(name) = proxy.username() {
        with = with.username(name);
    }
    if let Some(password) = proxy.password() {
        with = with.password(password);
    }
    for exception in exceptions.split(',').map(str::trim).filter(|exception| !exception.is_empty()) {
        with = with.no_proxy(exception);
        // `.example` and `example` both mean the host and all below it.
        if !exception.starts_with(['.', '*']) {
            with = with.no_proxy(&format!(".{exception}"));
        }
    }
    with.build().map(Some).map_err(refuse)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chosen(url: &str, environment: &[(&str, &str)]) -> Option<String> {
        let get = |key: &str| {
            environment.iter().find(|(known, _)| *known == key).map(|(_, value)| (*value).to_owned())
        };
        let proxy = choose(&Origin::of(url).expect(url), &get).expect("a proxy");
        let uri = url.parse().expect(url);
        proxy
            .filter(|proxy| !proxy.is_no_proxy(&uri))
            .map(|proxy| format!("{}:{}", proxy.host(), proxy.port()))
    }

    #[test]
    fn the_environment_says_which_proxy() {
        let all = [
            ("HTTPS_PROXY", "http://s:1"),
            ("http_proxy", "http://h:2"),
            ("ALL_PROXY", "http://a:3"),
            ("NO_PROXY", "b.example, .c"),
        ];
        assert_eq!(chosen("https://r.example/", &all).as_deref(), Some("s:1"));
        assert_eq!(chosen("http://r.example/", &all).as_deref(), Some("h:2"));
        assert_eq!(chosen("https://r.example/", &all[2..]).as_deref(), Some("a:3"));
        assert_eq!(chosen("https://r.example/", &[]), None);
        for direct in [
            "https://b.example/",
            "https://x.b.example/",
            "https://x.c/",
            "https://localhost/",
            "http://127.0.0.1:5000/",
        ] {
            assert_eq!(chosen(direct, &all), None, "{direct}");
        }
        let get = |key: &str| (key == "HTTPS_PROXY").then(|| "http://me:secret@".to_owned());
        let said =
            choose(&Origin::of("https://r.example/").expect("URL"), &get).expect_err("no URL").to_string();
        assert!(said.contains("HTTPS_PROXY") && !said.contains("secret"), "{said}");
    }
}
