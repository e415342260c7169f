//! Reads a workspace template's folder: wstemplate.json and the data files that it lists.
//!
//! ```json
//! {"name": "shop-empty", "data": {"rows.bin": "sha256:9f86d0..."}}
//! ```
//! Data files are opaque. Each is listed by its path below the folder with its digest, so that a
//! template cannot change without its descriptor saying so.

use std::collections::BTreeSet;

use crate::{
    app_image::{
        assemble::{self, FolderFiles},
        descriptor,
        manifest::Template,
        violation::{Findings, ViolationCode, printable},
    },
    digest::Digest,
};

/// The descriptor of a template.
pub(crate) const WSTEMPLATE_JSON: &str = "wstemplate.json";

/// Reads a template's folder; `files` are all below it.
pub(crate) fn read(
    folder: &str,
    files: &FolderFiles<'_>,
    findings: &mut Findings,
) -> Option<Template> {
    let path = format!("{folder}/{WSTEMPLATE_JSON}");
    let scanned = files.get(WSTEMPLATE_JSON).copied().flatten()?;
    let mut fields = assemble::parse(&path, scanned, findings)?;
    let name = descriptor::name(&mut fields, findings);
    let listed = fields.text_map("data", findings);
    let mut data = Vec::new();
    let mut named = BTreeSet::from([WSTEMPLATE_JSON]);
    for (file, text) in &listed {
        let field = format!("data.{file}");
        named.insert(file);
        let expected = text.parse::<Digest>();
        if expected.is_err() {
            let detail = format!("`{}` is not a digest", printable(text));
            fields.add(ViolationCode::BadDigest, &field, detail, findings);
        }
        let place = format!("{folder}/{file}");
        let Some(scanned) = files.get(file.as_str()).filter(|_| file != WSTEMPLATE_JSON) else {
            let detail = "the file is listed but not there";
            findings.add(ViolationCode::TemplateDataMissing, &place, detail);
            continue;
        };
        let Some(scanned) = scanned else { continue };
        if let Ok(expected) = expected
            && expected != scanned.digest
        {
            let detail = format!("the file is {}, listed is {expected}", scanned.digest);
            findings.add(ViolationCode::TemplateDigestMismatch, &place, detail);
        }
        data.push(scanned.file(&place));
    }
    let unlisted = files.iter().filter(|(file, scanned)| {
        // One that is refused for itself is not judged by the list as well.
        scanned.is_some() && !named.contains(*file)
    });
    for (file, _) in unlisted {
        let detail = "the file is there but not listed";
        findings.add(ViolationCode::TemplateDataUnlisted, &format!("{folder}/{file}"), detail);
    }
    fields.finish(findings);
    Some(Template { name: name?, folder: folder.to_owned(), data })
}
