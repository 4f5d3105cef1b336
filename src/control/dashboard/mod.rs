//! The dashboard: one page that shows the status document, live.
//!
//! Embedded whole; it asks nobody but the admin API that served it, and its policy (CSP) lets it run
//! no script and no style but its own. It holds no data, so it needs no token. Served at `/`.

use std::sync::LazyLock;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// The page as it is served.
#[derive(Clone, Debug)]
pub struct Page {
    /// The document, `text/html; charset=utf-8`.
    pub html: String,
    /// The value of its `Content-Security-Policy` (CSP Level 3), without which it is not served.
    pub policy: String,
}

/// The page, made once.
#[must_use]
pub fn page() -> &'static Page {
    static PAGE: LazyLock<Page> = LazyLock::new(|| Page {
        html: HTML.replace("/*STYLE*/", STYLE).replace("/*SCRIPT*/", SCRIPT),
        policy: format!(
            "default-src 'none'; script-src {}; style-src {}; img-src data:; connect-src 'self'; \
             base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
            hash_of(SCRIPT),
            hash_of(STYLE)
        ),
    });
    &PAGE
}

/// What a policy names an inline script or style by.
fn hash_of(text: &str) -> String {
    format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text)))
}

const HTML: &str = include_str!("page.html");
const STYLE: &str = include_str!("page.css");
const SCRIPT: &str = include_str!("page.js");

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_page_is_whole_and_asks_nobody_else() {
        let page = page();
        assert!(page.html.contains(STYLE) && page.html.contains(SCRIPT));
        // The name of SVG's elements is no address that is asked.
        let html = page.html.replace("http://www.w3.org/2000/svg", "");
        for outside in ["http:", "https:", " src=", "@import", "url(", "href=\"//"] {
            let found = html.lines().find(|line| line.contains(outside));
            assert_eq!(found, None, "{outside}");
        }
    }

    #[test]
    fn the_page_takes_nothing_from_the_wire_as_markup() {
        for way in
            ["innerHTML", "outerHTML", "insertAdjacent", "document.write", "eval(", "style=\""]
        {
            assert!(!SCRIPT.contains(way) && !HTML.contains(way), "{way}");
        }
    }

    #[test]
    fn the_policy_lets_the_page_alone_run() {
        let policy = &page().policy;
        assert!(policy.starts_with("default-src 'none'; script-src 'sha256-"), "{policy}");
        assert!(!policy.contains("unsafe"), "{policy}");
        // FIPS 180-4's example, in base64.
        assert_eq!(hash_of("abc"), "'sha256-ungWv48Bz+pBQUDeXa4iI7ADYaOWF3qctBD/YfIAFa0='");
    }
}
