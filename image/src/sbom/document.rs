// SPDX-License-Identifier: GPL-2.0-or-later

//! The bill of materials as a CycloneDX document. It is made of the tree alone: there is no time in it, its serial number is derived from
//! the rest, and components are sorted.

use std::collections::BTreeMap;

use cyclonedx_bom::external_models::normalized_string::NormalizedString;
use cyclonedx_bom::external_models::spdx::SpdxExpression;
use cyclonedx_bom::external_models::uri::{Purl, Uri};
use cyclonedx_bom::models::bom::{Bom, SpecVersion, UrnUuid};
use cyclonedx_bom::models::component::{
    Classification, Component, ComponentEvidence, Components, Cpe, Occurrence, Occurrences,
};
use cyclonedx_bom::models::external_reference::{
    ExternalReference, ExternalReferenceType, ExternalReferences, Uri as ReferenceUri,
};
use cyclonedx_bom::models::hash::{Hash as ComponentHash, HashAlgorithm, HashValue, Hashes};
use cyclonedx_bom::models::license::{License, LicenseChoice, Licenses};
use cyclonedx_bom::models::metadata::Metadata;
use cyclonedx_bom::models::organization::OrganizationalEntity;
use cyclonedx_bom::models::property::{Properties, Property};
use cyclonedx_bom::models::tool::Tools;
use purl::GenericPurlBuilder;

use super::{python, Hash, Inventory, Manager, OsRelease, Package};
use crate::error::Error;
use crate::hash::sha256;
use crate::superblock::uuid;
use crate::text::escape;

/// A document, and how many packages it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Document {
    /// CycloneDX 1.5 as JSON.
    pub json: Vec<u8>,
    /// Components that are packages.
    pub packages: u64,
}

/// The name of the property that has the package, or the file, of the sources.
const SOURCE: &str = "tesserafs:source";

/// Makes the document. A package that is in several places is one component.
pub fn document(inventory: &Inventory) -> Result<Document, Error> {
    let mut components: BTreeMap<String, Component> = BTreeMap::new();
    for package in &inventory.packages {
        let url = package_url(package, inventory.os.as_ref())?;
        match components.get_mut(&url) {
            None => {
                let component = component(package, &url);
                components.insert(url, component);
            }
            Some(component) => add_place(component, &package.place),
        }
    }
    let packages = components.len() as u64;
    let os = inventory.os.as_ref().map(os_component);
    let all: Vec<Component> = os.into_iter().chain(components.into_values()).collect();
    let tool = Component::new(Classification::Application, "tesserafs", env!("CARGO_PKG_VERSION"), None);
    let metadata = Metadata {
        tools: Some(Tools::Object { services: None, components: Some(Components(vec![tool])) }),
        ..Metadata::default()
    };
    let mut bom = Bom {
        serial_number: None,
        metadata: Some(metadata),
        components: Some(Components(all)),
        spec_version: SpecVersion::V1_5,
        ..Bom::default()
    };
    let digest = sha256(&json(bom.clone())?);
    bom.serial_number = Some(UrnUuid(format!("urn:uuid:{}", uuid(&digest))));
    Ok(Document { json: json(bom)?, packages })
}

fn json(bom: Bom) -> Result<Vec<u8>, Error> {
    let mut json = Vec::new();
    let written = bom.output_as_json(&mut json, SpecVersion::V1_5);
    written.map_err(|error| Error::Refused(format!("the bill of materials cannot be written: {error}")))?;
    json.push(b'\n');
    Ok(json)
}

fn component(package: &Package, url: &str) -> Component {
    let mut component =
        Component::new(Classification::Library, &package.name, &package.version, Some(url.to_owned()));
    component.group = package.scope.as_deref().map(NormalizedString::new);
    component.purl = url.parse::<Purl>().ok();
    component.description = package.description.as_deref().map(NormalizedString::new);
    component.supplier =
        package.supplier.as_deref().map(|name| OrganizationalEntity::new(&NormalizedString::new(name)));
    component.licenses = package.license.as_deref().map(|text| Licenses(vec![license(text)]));
    component.hashes = package.hash.as_ref().map(|Hash::Sha256(digest)| {
        Hashes(vec![ComponentHash { alg: HashAlgorithm::SHA_256, content: HashValue(digest.clone()) }])
    });
    component.external_references = package.homepage.as_deref().and_then(page);
    component.properties =
        package.source.as_deref().map(|source| Properties(vec![Property::new(SOURCE, source)]));
    add_place(&mut component, &package.place);
    component
}

/// Adds a file that says that the component is there.
fn add_place(component: &mut Component, place: &[u8]) {
    let evidence = component.evidence.get_or_insert(ComponentEvidence {
        licenses: None,
        copyright: None,
        occurrences: None,
        callstack: None,
        identity: None,
    });
    let occurrences = evidence.occurrences.get_or_insert_with(|| Occurrences(Vec::new()));
    let occurrence = Occurrence::new(&escape(place));
    if !occurrences.0.contains(&occurrence) {
        occurrences.0.push(occurrence);
    }
}

fn os_component(os: &OsRelease) -> Component {
    let reference = format!("os:{}", os.distro());
    let mut component = Component::new(Classification::OperatingSystem, &os.id, "", Some(reference));
    component.version = os.version_id.as_deref().map(NormalizedString::new);
    component.description = os.pretty_name.as_deref().map(NormalizedString::new);
    component.external_references = os.home_url.as_deref().and_then(page);
    component.cpe = os.cpe.as_deref().map(|cpe| Cpe::from(cpe.to_owned()));
    add_place(&mut component, &os.place);
    component
}

/// A licence as an SPDX expression where it is one, else by the name that it has.
fn license(text: &str) -> LicenseChoice {
    match SpdxExpression::try_from(text.to_owned()) {
        Ok(expression) => LicenseChoice::Expression(expression),
        Err(_) => LicenseChoice::License(License::named_license(text)),
    }
}

/// A page, where that is a URL.
fn page(url: &str) -> Option<ExternalReferences> {
    let uri = Uri::try_from(url.to_owned()).ok().filter(|_| url.contains("://"))?;
    let page = ExternalReference::new(ExternalReferenceType::Website, ReferenceUri::Url(uri));
    Some(ExternalReferences(vec![page]))
}

/// The package URL, by which databases of vulnerabilities know a package.
fn package_url(package: &Package, os: Option<&OsRelease>) -> Result<String, Error> {
    let refused =
        |error: String| Error::Refused(format!("{}: {}: {error}", escape(&package.place), package.shown()));
    let name = match package.manager {
        Manager::PyPi => python::normal(&package.name),
        _ => package.name.clone(),
    };
    let mut builder =
        GenericPurlBuilder::new(package.manager.name().to_owned(), name).with_version(&package.version);
    if let Some(scope) = &package.scope {
        builder = builder.with_namespace(scope);
    }
    let mut qualifiers = Vec::new();
    if package.manager.is_of_system() {
        let distribution = match package.manager {
            Manager::Deb => "debian",
            Manager::Apk => "alpine",
            _ => "",
        };
        builder = builder.with_namespace(os.map_or(distribution, |os| &os.id));
        qualifiers.extend(package.arch.clone().map(|arch| ("arch", arch)));
        qualifiers.extend(package.epoch.map(|epoch| ("epoch", epoch.to_string())));
        qualifiers.extend(os.map(|os| ("distro", os.distro())));
    }
    for (key, value) in qualifiers {
        builder = builder.with_qualifier(key, value).map_err(|error| refused(error.to_string()))?;
    }
    let url = builder.build().map_err(|error| refused(error.to_string()))?;
    // The specification has it encoded, and some readers take it for a space.
    Ok(url.to_string().replace('+', "%2B"))
}
