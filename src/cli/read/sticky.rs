//! Reads the cookie that keeps a session on its backend, and its attributes (RFC 6265 §4.1.1).

use std::num::NonZeroU64;

use crate::cli::read::{TOKEN, is_token, options};
use crate::config::{SameSite, StickyConfig};

/// The cookie as its flag names it: all but the secret.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(in crate::cli) struct StickyCookie {
    pub(in crate::cli) name: String,
    pub(in crate::cli) path: String,
    pub(in crate::cli) domain: Option<String>,
    pub(in crate::cli) max_age: Option<NonZeroU64>,
    pub(in crate::cli) secure: bool,
    pub(in crate::cli) http_only: bool,
    pub(in crate::cli) same_site: Option<SameSite>,
}

impl StickyCookie {
    pub(in crate::cli) fn with_secret(self, secret: Vec<u8>) -> StickyConfig {
        let StickyCookie { name, path, domain, max_age, secure, http_only, same_site } = self;
        StickyConfig { name, path, domain, max_age, secure, http_only, same_site, secret }
    }
}

/// Reads `NAME[,path=…][,domain=…][,max-age=…][,secure][,httponly][,samesite=…]`.
pub(in crate::cli) fn parse_sticky_cookie(text: &str) -> Result<StickyCookie, String> {
    let mut parts = text.split(',');
    let name = parts.next().unwrap_or_default();
    if !is_token(name) {
        return Err(format!("{name:?} is no name of a cookie: {TOKEN}"));
    }
    let mut cookie = StickyCookie {
        name: name.to_owned(),
        path: "/".to_owned(),
        domain: None,
        max_age: None,
        secure: false,
        http_only: false,
        same_site: None,
    };
    for (name, value) in options(parts)? {
        match (name, value) {
            ("path", Some(path)) => cookie.path = parse_path(path)?,
            ("domain", Some(domain)) => cookie.domain = Some(parse_domain(domain)?),
            ("max-age", Some(seconds)) => {
                let seconds: Option<NonZeroU64> = seconds.parse().ok();
                cookie.max_age = Some(seconds.ok_or("max-age is not a number of seconds above 0")?);
            }
            ("secure", None) => cookie.secure = true,
            ("httponly", None) => cookie.http_only = true,
            ("samesite", Some(value)) => cookie.same_site = Some(parse_same_site(value)?),
            ("path" | "domain" | "max-age" | "samesite", None) => {
                return Err(format!("{name} needs a value: {name}=…"));
            }
            ("secure" | "httponly", Some(_)) => return Err(format!("{name} has no value")),
            _ => return Err(format!("{name:?} is no option of a cookie; there are {OPTIONS}")),
        }
    }
    check(&cookie)?;
    Ok(cookie)
}

/// What browsers would refuse (RFC 6265bis §4.1.2.7, §4.1.3).
fn check(cookie: &StickyCookie) -> Result<(), String> {
    if cookie.same_site == Some(SameSite::None) && !cookie.secure {
        return Err("samesite=none needs secure: browsers drop the cookie otherwise".to_owned());
    }
    let name = cookie.name.to_ascii_lowercase();
    if name.starts_with("__secure-") && !cookie.secure {
        return Err("a cookie named __Secure-… needs secure".to_owned());
    }
    let is_of_host = cookie.secure && cookie.domain.is_none() && cookie.path == "/";
    if name.starts_with("__host-") && !is_of_host {
        return Err("a cookie named __Host-… needs secure, path=/ and no domain".to_owned());
    }
    Ok(())
}

fn parse_path(text: &str) -> Result<String, String> {
    let is_av_byte = |byte: u8| (b' '..=b'~').contains(&byte) && byte != b';';
    if text.starts_with('/') && text.bytes().all(is_av_byte) {
        return Ok(text.to_owned());
    }
    Err("path begins with / and has only ASCII without ; and control characters".to_owned())
}

fn parse_domain(text: &str) -> Result<String, String> {
    let is_domain_byte = |byte: u8| byte.is_ascii_alphanumeric() || b"-.".contains(&byte);
    if !text.is_empty() && text.bytes().all(is_domain_byte) {
        return Ok(text.to_ascii_lowercase());
    }
    Err("domain is no host name".to_owned())
}

fn parse_same_site(text: &str) -> Result<SameSite, String> {
    match text {
        "strict" => Ok(SameSite::Strict),
        "lax" => Ok(SameSite::Lax),
        "none" => Ok(SameSite::None),
        _ => Err("samesite is none of strict, lax and none".to_owned()),
    }
}

const OPTIONS: &str =
    "path=PATH, domain=NAME, max-age=SECONDS, secure, httponly and samesite=strict|lax|none";
