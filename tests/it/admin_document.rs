//! The admin API's OpenAPI document against the real binary: what is asked, changed and refused is
//! answered as it says.

use std::net::SocketAddr;

use serde_json::{Value, json};

use crate::admin::{admin, check_problem, get, json_of, status};
use crate::admin_writes::{BACKENDS, answering, authority, send};
use crate::support::client::Response;
use crate::support::proxy::Flags;
use crate::support::{SOON, Scratch, wait_until};

#[test]
fn answers_are_what_the_openapi_document_says() {
    let upstream = answering("one");
    let proxy = admin(&[&upstream]).start();
    let addr = proxy.admin_addr();
    let document = json_of(&get(addr, "/api/v1/openapi.json").expect(200));
    proxy.client().get("/").expect(200);
    let epoch = status(addr)["epoch"].clone();
    let id = authority(&upstream);
    for (path, template) in [
        ("/healthz".to_string(), "/healthz"),
        ("/readyz".to_string(), "/readyz"),
        ("/api/v1/status".to_string(), "/api/v1/status"),
        ("/api/v1/history".to_string(), "/api/v1/history"),
        ("/api/v1/workers".to_string(), "/api/v1/workers"),
        ("/api/v1/config".to_string(), "/api/v1/config"),
        ("/api/v1/pools".to_string(), "/api/v1/pools"),
        (BACKENDS.to_string(), "/api/v1/pools/{pool}/backends"),
        (format!("{BACKENDS}/{id}"), "/api/v1/pools/{pool}/backends/{id}"),
        ("/api/v1/snapshots".to_string(), "/api/v1/snapshots"),
        (format!("/api/v1/snapshots/diff?from=1&to={epoch}"), "/api/v1/snapshots/diff"),
        ("/api/v1/explain".to_string(), "/api/v1/explain"),
    ] {
        let schema = &document["paths"][template]["get"]["responses"]["200"]["content"]["application/json"]
            ["schema"];
        assert!(schema.is_object(), "{template}");
        let answer = json_of(&get(addr, &path).expect(200));
        check_schema(&document, schema, &answer, template);
    }
    let problem = json_of(&get(addr, "/nowhere"));
    check_schema(&document, &document["components"]["schemas"]["Problem"], &problem, "a problem");
}

#[test]
fn the_configuration_is_told_with_its_routes_and_without_its_secrets() {
    let scratch = Scratch::new("config");
    let (file, secret) = (scratch.join("lane.toml"), scratch.join("secret"));
    std::fs::write(&secret, "0123456789abcdef").unwrap();
    let text = format!(
        "sticky-cookie = \"lane\"\nsticky-secret-file = {secret:?}\ntraceparent = \"sampled\"\n\
         health-header = \"Authorization: very-secret\"\nretry-on = \"lost,503-504\"\n\
         [[pools]]\nname = \"a\"\nbackends = [\"http://127.0.0.1:1\"]\nretries = 1\n\
         [[routes]]\npool = \"a\"\nhost = \"*.Example.org\"\npath-prefix = \"/v2\"\n\
         rewrite-prefix = \"/\"\n[[routes]]\nredirect = \"https://{{host}}{{path}}\"\n"
    );
    std::fs::write(&file, text).unwrap();
    let flags = Flags::none().with("--config", file.to_str().unwrap());
    let proxy = flags.with("--admin", "127.0.0.1:0").start();
    let addr = proxy.admin_addr();
    let document = json_of(&get(addr, "/api/v1/openapi.json").expect(200));
    let answer = get(addr, "/api/v1/config").expect(200);
    let config = json_of(&answer);
    check_schema(&document, &document["components"]["schemas"]["Config"], &config, "config");
    let text = answer.text();
    assert!(!text.contains("very-secret") && !text.contains("0123456789abcdef"), "{text}");
    let null = Value::Null;
    let first = json!({
        "listener": null, "host": "*.example.org", "path": null, "path_prefix": "/v2",
        "method": null, "rewrite_prefix": "/", "pool": "a", "redirect": null, "status": null,
    });
    let second = json!({
        "listener": null, "host": null, "path": null, "path_prefix": null, "method": null,
        "rewrite_prefix": null, "pool": null, "redirect": "https://{host}{path}", "status": 302,
    });
    assert_eq!(config["routes"], json!([first, second]));
    assert_eq!(config["forward"]["traceparent"], "sampled");
    let pool = &config["pools"][0];
    assert_eq!(
        (&pool["retry"]["on"], &pool["retry"]["retries_max"]),
        (&json!("lost,503-504"), &json!(1))
    );
    assert_eq!(pool["sticky"]["cookie"], "lane");
    assert_eq!(pool["health"]["header_names"], json!(["Authorization"]));
    assert_eq!((&config["access_log"], &config["discovery"]["etcd"]), (&null, &null));
}

/// Sends a change of what a path of the document names, and checks that the answer is one of those
/// that it lists there: status, header fields, media type and schema.
struct Changes {
    addr: SocketAddr,
    document: Value,
}

impl Changes {
    #[track_caller]
    fn check(&self, line: &str, path: &str, headers: &str, body: &Value, status: u16) -> Response {
        let (method, template) = line.split_once(' ').unwrap();
        let at = format!("{line} of {path} with {body}");
        let text = if body.is_null() { String::new() } else { body.to_string() };
        let answer = send(self.addr, &format!("{method} {path}"), headers, &text).expect(status);
        let described = &self.document["paths"][template][method.to_lowercase()];
        if status < 300 && !body.is_null() {
            let schema = &described["requestBody"]["content"]["application/json"]["schema"];
            assert!(schema.is_object(), "{at}: no schema of its body");
            check_schema(&self.document, schema, body, &at);
        }
        let listed = match &described["responses"][status.to_string()] {
            Value::Null if status >= 400 => &described["responses"]["default"],
            listed => listed,
        };
        assert!(listed["description"].is_string(), "{at}: {status} is not listed");
        for name in listed["headers"].as_object().into_iter().flatten().map(|(name, _)| name) {
            assert!(answer.get(name).is_some(), "{at}: no {name} in {answer:?}");
        }
        match listed["content"].as_object().and_then(|content| content.iter().next()) {
            Some((media_type, content)) => {
                assert_eq!(answer.get("content-type"), Some(media_type.as_str()), "{at}");
                check_schema(&self.document, &content["schema"], &json_of(&answer), &at);
            }
            None => assert!(answer.body.is_empty(), "{at}: {answer:?}"),
        }
        if status >= 400 {
            check_problem(&answer, status, "");
        }
        answer
    }
}

#[test]
fn changes_and_their_refusals_are_what_the_openapi_document_says() {
    const LIST: &str = "/api/v1/pools/{pool}/backends";
    const ONE: &str = "/api/v1/pools/{pool}/backends/{id}";
    let (one, two) = (answering("one"), answering("two"));
    let scratch = Scratch::new("document");
    let file = scratch.join("lane.toml");
    let text = format!("[[pools]]\nname = \"default\"\nbackends = [{:?}]\n", one.url());
    std::fs::write(&file, &text).unwrap();
    let flags = Flags::none().with("--config", file.to_str().unwrap());
    let mut proxy = flags.with("--admin", "127.0.0.1:0").start();
    let addr = proxy.admin_addr();
    let document = json_of(&get(addr, "/api/v1/openapi.json").expect(200));
    let api = Changes { addr, document };
    let [first, second] = [&one, &two].map(|it| format!("{BACKENDS}/{}", authority(it)));
    let (nothing, empty) = (Value::Null, json!({}));
    let (post, patch, delete, reset) = (
        format!("POST {LIST}"),
        format!("PATCH {ONE}"),
        format!("DELETE {ONE}"),
        format!("POST {ONE}/reset"),
    );

    let settings = json!({"weight": 3, "mode": "drain", "max_conns": 9, "backup": true});
    let mut backend = settings.clone();
    backend["address"] = authority(&two).into();
    let added = api.check(&post, BACKENDS, "", &backend, 201);
    let tag = added.get("etag").unwrap();
    api.check(&post, BACKENDS, "", &backend, 409);
    api.check(&post, BACKENDS, "", &empty, 422);
    api.check(&post, "/api/v1/pools/none/backends", "", &backend, 404);
    api.check(&patch, &second, &format!("If-Match: {tag}\r\n"), &json!({"max_conns": null}), 200);
    api.check(&patch, &second, &format!("If-Match: {tag}\r\n"), &settings, 412);
    api.check(&patch, &second, "", &settings, 200);
    api.check(&patch, &format!("{BACKENDS}/127.0.0.1:1"), "", &settings, 404);
    api.check(&patch, &second, "", &json!({"weight": 0}), 422);
    api.check(&delete, &second, "If-Match: nothing\r\n", &nothing, 400);
    // Nobody else names the second; the file names the first.
    api.check(&reset, &format!("{second}/reset"), "", &empty, 204);
    api.check(&delete, &second, "", &nothing, 404);
    api.check(&delete, &first, "", &nothing, 204);
    api.check(&reset, &format!("{first}/reset"), "", &empty, 200);
    // There is nothing to forget any more.
    api.check(&reset, &format!("{first}/reset"), "", &nothing, 200);
    api.check(&reset, &format!("{second}/reset"), "", &nothing, 404);
    api.check(&reset, &format!("{first}/reset"), "", &json!({"weight": 1}), 422);

    let (reload, drain) = ("POST /api/v1/reload", "POST /api/v1/drain");
    api.check(reload, "/api/v1/reload", "", &empty, 200);
    api.check(reload, "/api/v1/reload", "", &nothing, 200);
    std::fs::write(&file, format!("colour = 1\n{text}")).unwrap();
    let refused = api.check(reload, "/api/v1/reload", "", &empty, 422);
    assert!(refused.text().contains("colour"), "{refused:?}");
    api.check(reload, "/api/v1/reload", "", &json!([]), 400);
    api.check(drain, "/api/v1/drain", "", &json!({"now": true}), 422);
    api.check(drain, "/api/v1/drain", "", &nothing, 202);
    wait_until("it ends", SOON, || !proxy.is_running());
}

/// The part of JSON Schema that the document uses.
#[track_caller]
fn check_schema(document: &Value, schema: &Value, value: &Value, at: &str) {
    if let Some(reference) = schema["$ref"].as_str() {
        let schema = document.pointer(reference.trim_start_matches('#')).unwrap();
        return check_schema(document, schema, value, at);
    }
    if let Some(values) = schema["enum"].as_array() {
        assert!(values.contains(value), "{at}: {value} is none of {values:?}");
    }
    let types = match &schema["type"] {
        Value::Array(types) => types.clone(),
        Value::Null => Vec::new(),
        one => vec![one.clone()],
    };
    let is_of = |name: &str| match name {
        "string" => value.is_string(),
        "number" => value.is_number(),
        "integer" => value.is_u64() || value.is_i64(),
        "boolean" => value.is_boolean(),
        "array" => value.is_array(),
        "object" => value.is_object(),
        "null" => value.is_null(),
        other => panic!("{at}: a type {other}"),
    };
    let fits = types.is_empty() || types.iter().any(|name| is_of(name.as_str().unwrap()));
    assert!(fits, "{at}: {value} is no {types:?}");
    for element in value.as_array().into_iter().flatten() {
        check_schema(document, &schema["items"], element, at);
    }
    let Some(object) = value.as_object() else { return };
    for name in schema["required"].as_array().into_iter().flatten() {
        assert!(object.contains_key(name.as_str().unwrap()), "{at}: no {name} in {value}");
    }
    for (name, value) in object {
        match schema["properties"].get(name) {
            Some(schema) => check_schema(document, schema, value, &format!("{at}.{name}")),
            None => match &schema["additionalProperties"] {
                Value::Bool(false) => panic!("{at}: {name} is not described"),
                Value::Object(_) => {
                    check_schema(document, &schema["additionalProperties"], value, at);
                }
                _ => {}
            },
        }
    }
}
