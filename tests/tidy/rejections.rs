//! Every code a user can meet has a paragraph that says what to do.

use crate::tree::root;
use std::fs;

#[test]
fn every_rejection_code_is_documented() {
    let page = fs::read_to_string(root().join("docs/rejections.md")).unwrap();
    let codes = model::rejection::CODES;
    assert!(codes.len() >= 25);
    for code in codes.iter().chain(api::reason::REASONS) {
        assert!(page.contains(&format!("### {code}\n")), "docs/rejections.md lacks {code}");
    }
}
