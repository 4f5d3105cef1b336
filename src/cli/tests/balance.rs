//! The flags of policies, sticky sessions, the queue and retries.

use std::path::PathBuf;
use std::time::Duration;

use super::{check_refused, config_of, config_of_words, pool_of};
use crate::config::{HashKey, Policy, RetryOn, SameSite, Statuses};

#[test]
fn policies_are_read_by_name() {
    for (flags, policy) in [
        ("", Policy::RoundRobin),
        ("--policy round-robin", Policy::RoundRobin),
        ("--policy least-connections", Policy::LeastConnections),
        ("--policy p2c", Policy::P2c),
        ("--policy ewma", Policy::Ewma),
        ("--policy random", Policy::Random),
        ("--policy maglev", Policy::Maglev),
    ] {
        assert_eq!(pool_of(flags).balance.policy, policy, "{flags}");
    }
    check_refused("--policy fastest", "least-connections");
}

#[test]
fn hash_keys_are_read_with_their_names() {
    for (text, key) in [
        ("source", HashKey::Source),
        ("uri", HashKey::Uri),
        ("path", HashKey::Path),
        ("host", HashKey::Host),
        ("header:X-User", HashKey::Header("x-user".to_owned())),
        ("cookie:Session", HashKey::Cookie("Session".to_owned())),
        ("query:a%20b", HashKey::Query("a%20b".to_owned())),
    ] {
        let pool = pool_of(&format!("--policy maglev --hash-key {text}"));
        assert_eq!(pool.balance.hash_key, key, "{text}");
    }
    for (text, reason) in [
        ("url", "none of source"),
        ("source:x", "none of source"),
        ("body:x", "none of source"),
        ("header:", "is no name"),
        ("header:x:y", "is no name"),
        ("cookie:a=b", "is no name"),
        ("query:", "is no query parameter"),
        ("query:a=b", "is no query parameter"),
        ("query:ü", "is no query parameter"),
    ] {
        check_refused(&format!("--policy maglev --hash-key {text}"), reason);
    }
}

#[test]
fn flags_of_the_hash_need_the_policy_that_hashes() {
    let balance = pool_of("--policy maglev").balance;
    assert_eq!((balance.hash_key, balance.hash_seed), (HashKey::Source, 0));
    assert_eq!(balance.hash_balance_percent, None);
    let flags = "--policy maglev --hash-seed 18446744073709551615 --hash-balance-factor 125";
    let balance = pool_of(flags).balance;
    assert_eq!(balance.hash_seed, u64::MAX);
    assert_eq!(balance.hash_balance_percent.unwrap().get(), 125);
    let off = pool_of("--policy maglev --hash-balance-factor 0").balance;
    assert_eq!(off.hash_balance_percent, None);
    for flag in ["--hash-key uri", "--hash-seed 1", "--hash-balance-factor 125"] {
        check_refused(flag, "needs --policy maglev");
        check_refused(&format!("--policy p2c {flag}"), "needs --policy maglev");
    }
    for factor in ["100", "65536", "1", "x"] {
        check_refused(&format!("--policy maglev --hash-balance-factor {factor}"), "101 to 65535");
    }
}

#[test]
fn sticky_cookies_are_read_with_their_attributes() {
    let sticky = |text: &str| pool_of(&format!("--sticky-cookie {text}")).balance.sticky;
    assert!(pool_of("").balance.sticky.is_none());
    let plain = sticky("LANE").unwrap();
    assert_eq!((plain.name.as_str(), plain.path.as_str()), ("LANE", "/"));
    assert_eq!((plain.domain, plain.max_age, plain.same_site), (None, None, None));
    assert_eq!((plain.secure, plain.http_only), (false, false));
    let full = "l,path=/shop,domain=Example.org,max-age=60,secure,httponly,samesite=none";
    let full = sticky(full).unwrap();
    assert_eq!((full.path.as_str(), full.domain.as_deref()), ("/shop", Some("example.org")));
    assert_eq!(full.max_age.unwrap().get(), 60);
    assert_eq!((full.secure, full.http_only), (true, true));
    assert_eq!(full.same_site, Some(SameSite::None));
    assert_eq!(sticky("l,samesite=lax").unwrap().same_site, Some(SameSite::Lax));
    assert_eq!(sticky("__Host-l,secure").unwrap().name, "__Host-l");
    for (text, reason) in [
        (",secure", "no name of a cookie"),
        ("a=b", "no name of a cookie"),
        ("a,path=shop", "path begins with /"),
        ("a,path=/;x", "path begins with /"),
        ("a,path=/\u{7f}", "path begins with /"),
        ("a,path", "needs a value"),
        ("a,domain=", "no host name"),
        ("a,domain=x;y", "no host name"),
        ("a,max-age=0", "seconds above 0"),
        ("a,max-age=1h", "seconds above 0"),
        ("a,secure=1", "has no value"),
        ("a,secure,secure", "twice"),
        ("a,samesite=some", "none of strict"),
        ("a,samesite=none", "needs secure"),
        ("a,expires=never", "is no option of a cookie"),
        ("__Secure-a", "needs secure"),
        ("__host-a,secure,path=/x", "path=/ and no domain"),
    ] {
        check_refused(&format!("--sticky-cookie {text}"), reason);
    }
}

#[test]
fn the_sticky_secret_is_a_files_content_or_random() {
    let path = |name: &str, content: &[u8]| -> PathBuf {
        let name = format!("corelane-cli-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        std::fs::write(&path, content).unwrap();
        path
    };
    let read = |path: PathBuf| {
        let words = ["--sticky-cookie", "a", "--sticky-secret-file", path.to_str().unwrap()];
        let config = config_of_words(&words);
        // A file that is gone already is what one of the cases is about.
        std::fs::remove_file(&path).ok();
        config.map(|mut config| config.pools.remove(0).balance.sticky.unwrap().secret)
    };
    assert_eq!(read(path("line", b"0123456789abcdef\n")).unwrap(), b"0123456789abcdef");
    assert_eq!(read(path("bytes", &[0; 4096])).unwrap(), [0; 4096]);
    for (path, reason) in [
        (path("short", b"0123456789abcde\n"), "has 15 bytes, less than 16"),
        (path("empty", b""), "has 0 bytes"),
        (path("long", &[1; 4097]), "more than 4096 bytes"),
        (PathBuf::from("/nowhere/secret"), "cannot be read"),
        (PathBuf::from("/"), "cannot be read"),
    ] {
        let error = read(path).unwrap_err();
        assert!(error.contains(reason) && error.contains("urandom"), "{error}");
    }
    let random = || pool_of("--sticky-cookie a").balance.sticky.unwrap().secret;
    assert_eq!(random().len(), 32);
    assert_eq!(random(), random(), "one for the process");
    check_refused("--sticky-secret-file /nowhere", "needs --sticky-cookie");
}

#[test]
fn slow_start_and_panic_are_off_by_default() {
    let balance = pool_of("").balance;
    assert_eq!((balance.slow_start, balance.panic_percent), (Duration::ZERO, 0));
    let balance = pool_of("--slow-start 30s --panic-percent 100").balance;
    assert_eq!((balance.slow_start, balance.panic_percent), (Duration::from_secs(30), 100));
    check_refused("--slow-start 2h", "0s to 1h");
    check_refused("--panic-percent 101", "0 to 100");
}

#[test]
fn the_queue_has_a_length_and_a_time() {
    let queue = |flags| {
        let config = config_of(flags).unwrap();
        (config.queue_max, config.pools[0].queue_timeout)
    };
    assert_eq!(queue(""), (1024, Duration::from_secs(5)));
    assert_eq!(queue("--queue-max 0 --queue-timeout 1ms"), (0, Duration::from_millis(1)));
    check_refused("--queue-max 1048577", "0 to 1048576");
    check_refused("--queue-timeout 0s", "1ms to 1day");
}

#[test]
fn retries_are_limited_in_number_size_and_share() {
    let retry = pool_of("").retry;
    assert_eq!((retry.retries_max, retry.body_bytes_max), (3, 65_536));
    assert_eq!((retry.budget_percent, retry.budget_per_second), (20, 3));
    let flags =
        "--retries 0 --retry-body-bytes-max 0 --retry-budget-percent 100 --retry-budget-min 0";
    let retry = pool_of(flags).retry;
    assert_eq!((retry.retries_max, retry.body_bytes_max), (0, 0));
    assert_eq!((retry.budget_percent, retry.budget_per_second), (100, 0));
    check_refused("--retries 11", "0 to 10");
    check_refused("--retries -1", "0 to 10");
    check_refused("--retries 0 --retry-on lost", "--retry-on needs --retries above 0");
    assert!(config_of("--retries 0 --retry-on none").is_ok());
    for seed in ["-1", "18446744073709551616", "x"] {
        let flags = format!("--policy maglev --hash-seed {seed}");
        check_refused(&flags, "it is not a number from 0 to 18446744073709551615");
    }
    check_refused("--retry-body-bytes-max 16777217", "0 to 16777216");
    check_refused("--retry-budget-percent 101", "0 to 100");
    check_refused("--retry-budget-min=-1", "0 to 1000000");
}

#[test]
fn what_is_tried_again_is_a_list() {
    let none = RetryOn { lost: false, down: false, timeout: false, invalid: false, statuses: None };
    let on = |text: &str| pool_of(&format!("--retry-on {text}")).retry.on;
    assert_eq!(pool_of("").retry.on, RetryOn { lost: true, down: true, ..none.clone() });
    assert_eq!(on("none"), none);
    assert_eq!(
        on("timeout,invalid,down"),
        RetryOn { down: true, timeout: true, invalid: true, ..none.clone() }
    );
    let statuses = Some(Statuses(vec![429..=429, 500..=502, 504..=504]));
    assert_eq!(on("504,lost,501-502,429,500-501"), RetryOn { lost: true, statuses, ..none });
    for (text, reason) in [
        ("lost,none", "none stands alone"),
        ("5xx", "no status from 400 to 599"),
        ("200", "no status from 400 to 599"),
        ("500-600", "no status from 400 to 599"),
        ("599-500", "runs backwards"),
        ("lost,", "is none of lost"),
        ("always", "is none of lost"),
    ] {
        check_refused(&format!("--retry-on {text}"), reason);
    }
}
