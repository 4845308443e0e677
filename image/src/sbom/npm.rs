// SPDX-License-Identifier: GPL-2.0-or-later

//! Node's packages: `package.json` in a directory of `node_modules`.

use serde::Deserialize;
use serde_json::Value;

use super::package::{Manager, Package};
use super::Wrong;

/// The fields that say what a package is; people write them in many ways.
#[derive(Deserialize)]
struct Json {
    name: Option<String>,
    version: Option<String>,
    description: Option<Value>,
    homepage: Option<Value>,
    author: Option<Value>,
    license: Option<Value>,
    licenses: Option<Value>,
}

/// The package that the `package.json` at `place` describes.
pub(super) fn package(text: &[u8], place: &[u8]) -> Result<Package, Wrong> {
    let text = text.strip_prefix(b"\xef\xbb\xbf").unwrap_or(text);
    let json: Json = serde_json::from_slice(text).map_err(|error| {
        Wrong::new("as JSON".to_owned(), error.to_string(), "an object with name and version")
    })?;
    let lacks = |what: &str| Wrong::new("as JSON".to_owned(), format!("no {what}"), "one");
    let name = json.name.filter(|name| !name.is_empty()).ok_or_else(|| lacks("name"))?;
    let version = json.version.filter(|version| !version.is_empty()).ok_or_else(|| lacks("version"))?;
    let (scope, name) = match name.split_once('/') {
        Some((scope, name)) => (Some(scope.to_owned()), name.to_owned()),
        None => (None, name),
    };
    let mut package = Package::new(Manager::Npm, name, version, place);
    package.scope = scope;
    package.description = json.description.as_ref().and_then(text_of);
    package.homepage = json.homepage.as_ref().and_then(text_of);
    package.supplier = json.author.as_ref().and_then(|author| text_of(author.get("name").unwrap_or(author)));
    package.license = json.license.as_ref().or(json.licenses.as_ref()).and_then(license);
    Ok(package)
}

fn text_of(value: &Value) -> Option<String> {
    value.as_str().map(str::trim).filter(|text| !text.is_empty()).map(str::to_owned)
}

/// A licence: a text, an object with a type, or a list of these, each of which is enough.
fn license(value: &Value) -> Option<String> {
    let one = |value: &Value| text_of(value.get("type").unwrap_or(value));
    match value {
        Value::Array(all) => {
            let all: Vec<String> = all.iter().filter_map(one).collect();
            Some(all.join(" OR ")).filter(|text| !text.is_empty())
        }
        value => one(value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packages_are_written_in_many_ways() {
        let text = br#"{"name": "@scope/x", "version": "1.0", "author": {"name": "A"}, "licenses": [{"type": "MIT"}, "ISC"]}"#;
        let scoped = package(text, b"").expect("a package");
        assert_eq!((scoped.scope.as_deref(), &*scoped.name), (Some("@scope"), "x"));
        assert_eq!((scoped.supplier.as_deref(), scoped.license.as_deref()), (Some("A"), Some("MIT OR ISC")));
        let text =
            b"\xef\xbb\xbf{\"name\": \"x\", \"version\": \"1\", \"license\": \"MIT\", \"author\": \"B\"}";
        let plain = package(text, b"").expect("a package");
        assert_eq!((plain.supplier.as_deref(), plain.license.as_deref()), (Some("B"), Some("MIT")));
        let deep = "[".repeat(100_000);
        for wrong in ["", "{}", "[]", "{\"name\": \"x\"}", "{\"name\": 1, \"version\": 2}", "\0", &deep] {
            assert!(package(wrong.as_bytes(), b"").is_err(), "{wrong:.20}");
        }
    }
}
