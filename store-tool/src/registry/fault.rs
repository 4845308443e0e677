// SPDX-License-Identifier: GPL-2.0-or-later

//! Why a request failed, and whether it is worth another one.

use std::time::Duration;

use tesserafs_image::{text, Error};

/// A failure.
#[derive(Debug)]
pub(super) enum Fault {
    /// It can pass by itself.
    Passing(String),
    /// The server wants fewer requests, or later ones.
    Busy {
        /// The sentence.
        why: String,
        /// How long it wants to be left alone.
        wait: Option<Duration>,
    },
    /// Asking again is of no use.
    Last(String),
    /// The end, at mirrors too: the user interrupted, or whoever takes the bytes wants no more.
    Stop(Error),
}

impl Fault {
    /// One that does not pass.
    pub(super) fn last(why: impl Into<String>) -> Self {
        Self::Last(why.into())
    }

    /// A transport that failed.
    pub(super) fn transport(url: &str, error: &ureq::Error) -> Self {
        let said = text::escape(error.to_string().as_bytes());
        if let Some(why) = of_tls(&said) {
            return Self::Last(format!("{url}: {why}"));
        }
        let why = format!("{url}: {said}");
        match error {
            ureq::Error::BadUri(_)
            | ureq::Error::Http(_)
            | ureq::Error::InvalidProxyUrl
            | ureq::Error::Der(_)
            | ureq::Error::RequireHttpsOnly(_) => Self::Last(why),
            _ => Self::Passing(why),
        }
    }

    /// The sentence.
    pub(super) fn into_text(self) -> String {
        match self {
            Self::Passing(why) | Self::Busy { why, .. } | Self::Last(why) => why,
            Self::Stop(error) => error.to_string(),
        }
    }
}

/// Errors of OpenSSL that do not pass, in words.
fn of_tls(said: &str) -> Option<String> {
    if said.contains("SSL routines") && said.contains("wrong version number") {
        return Some("the server does not speak TLS; --plain-http reaches it without".into());
    }
    if !said.contains("SSL routines") || !said.contains("certificate") {
        return None;
    }
    if said.contains("certificate verify failed") {
        let detail = said.rsplit_once('(').and_then(|(_, detail)| detail.strip_suffix(')'));
        let detail = detail.unwrap_or("certificate verify failed");
        return Some(format!(
            "the certificate of the server is not trusted here ({detail}); --ca trusts others, too"
        ));
    }
    Some(
        "the server does not take the certificate that it was shown, or wants one: --client-cert shows one"
            .into(),
    )
}

impl From<Error> for Fault {
    fn from(error: Error) -> Self {
        Self::Stop(error)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_openssl_says_of_certificates_is_told_in_words() {
        let verify = "native-tls: error:0A000086:SSL routines:tls_post_process_server_certificate:certificate verify failed:\
                      ../ssl/statem/statem_clnt.c:1889: (unable to get local issuer certificate)";
        let said = of_tls(verify).expect("words");
        assert_eq!(
            said,
            "the certificate of the server is not trusted here (unable to get local issuer certificate); --ca trusts others, too"
        );
        let alert = "io: error:0A000412:SSL routines:ssl3_read_bytes:sslv3 alert bad certificate:../ssl/record/rec_layer_s3.c:1601:";
        assert!(of_tls(alert).expect("words").contains("--client-cert"));
        let plain = "native-tls: error:0A00010B:SSL routines:ssl3_get_record:wrong version number:../ssl/record/ssl3_record.c:350:";
        assert!(of_tls(plain).expect("words").contains("--plain-http"));
        assert_eq!(of_tls("io: Connection refused (os error 111)"), None);
        assert_eq!(of_tls("io: a certificate of something else"), None);
    }
}
