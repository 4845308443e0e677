// SPDX-License-Identifier: GPL-2.0-or-later

//! `WWW-Authenticate`: how a registry wants its clients to say who they are.

/// A challenge.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Challenge {
    /// A name and a password.
    Basic,
    /// A token of a token server.
    Bearer {
        /// The URL of the token server.
        realm: String,
        /// The registry, as the token server knows it.
        service: Option<String>,
        /// The rights that the request takes.
        scope: Option<String>,
    },
}

impl Challenge {
    /// The best of the challenges in these headers: a token, if one is offered.
    pub(super) fn choose<'a>(headers: impl Iterator<Item = &'a str>) -> Option<Self> {
        let all: Vec<_> = headers.flat_map(parse).collect();
        let token = all.iter().find(|challenge| matches!(challenge, Self::Bearer { .. }));
        token.or_else(|| all.first()).cloned()
    }
}

/// The challenges of a header. Those of other schemes are left out.
fn parse(header: &str) -> Vec<Challenge> {
    let mut challenges = Vec::new();
    let mut scheme = String::new();
    let mut parameters: Vec<(String, String)> = Vec::new();
    let mut end = |scheme: &mut String, parameters: &mut Vec<(String, String)>| {
        let mut get = |key: &str| {
            let at = parameters.iter().position(|(known, _)| known == key)?;
            Some(parameters.swap_remove(at).1)
        };
        match scheme.as_str() {
            "basic" => challenges.push(Challenge::Basic),
            "bearer" => {
                if let Some(realm) = get("realm") {
                    challenges.push(Challenge::Bearer {
                        realm,
                        service: get("service"),
                        scope: get("scope"),
                    });
                }
            }
            _ => (),
        }
        scheme.clear();
        parameters.clear();
    };
    let mut rest = header;
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        let word_end = rest.find(|c: char| !is_token(c)).unwrap_or(rest.len());
        if word_end == 0 {
            break;
        }
        let (word, after) = rest.split_at(word_end);
        let after = after.trim_start_matches([' ', '\t']);
        rest = match after.strip_prefix('=') {
            // A word without a value begins a challenge.
            None => {
                end(&mut scheme, &mut parameters);
                scheme = word.to_ascii_lowercase();
                after
            }
            Some(value) => {
                let (value, rest) = unquote(value.trim_start_matches([' ', '\t']));
                parameters.push((word.to_ascii_lowercase(), value));
                rest
            }
        };
    }
    end(&mut scheme, &mut parameters);
    challenges
}

/// A value, and what follows it.
fn unquote(text: &str) -> (String, &str) {
    let Some(quoted) = text.strip_prefix('"') else {
        let end = text.find([',', ' ', '\t']).unwrap_or(text.len());
        return (text[..end].to_owned(), &text[end..]);
    };
    let mut value = String::new();
    let mut letters = quoted.char_indices();
    while let Some((at, letter)) = letters.next() {
        match letter {
            '"' => return (value, &quoted[at + 1..]),
            '\\' => value.extend(letters.next().map(|(_, letter)| letter)),
            letter => value.push(letter),
        }
    }
    (value, "")
}

fn is_token(c: char) -> bool {
    c.is_ascii_alphanumeric() || "!#$%&'*+-.^_`|~".contains(c)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_token_is_better_than_a_password() {
        let bearer = |realm: &str, service: Option<&str>, scope: Option<&str>| Challenge::Bearer {
            realm: realm.into(),
            service: service.map(str::to_owned),
            scope: scope.map(str::to_owned),
        };
        let full = bearer("https://a/t", Some("r"), Some("repository:a/b:pull,push"));
        for (headers, expected) in [
            (
                &["Bearer realm=\"https://a/t\",service=\"r\",scope=\"repository:a/b:pull,push\""][..],
                Some(full.clone()),
            ),
            (
                &["bearer Realm = \"https://a/t\" , service=r , scope=\"repository:a/b:pull,push\" "],
                Some(full.clone()),
            ),
            (
                &["Basic realm=\"x, y\"", "Bearer realm=\"https://a/t\""],
                Some(bearer("https://a/t", None, None)),
            ),
            (
                &["Basic realm=\"x, Bearer realm=\\\"\", Bearer realm=\"https://a/t\""],
                Some(bearer("https://a/t", None, None)),
            ),
            (&["Basic realm=x"], Some(Challenge::Basic)),
            (&["Negotiate abc=", "Basic"], Some(Challenge::Basic)),
            (&["Bearer service=\"r\""], None),
            (&["Digest realm=\"x\""], None),
            (&[""], None),
            (&["=,\"\u{e4}"], None),
            (&["Bearer realm=\"never ends"], Some(bearer("never ends", None, None))),
        ] {
            assert_eq!(Challenge::choose(headers.iter().copied()), expected, "{headers:?}");
        }
    }
}
