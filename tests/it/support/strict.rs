//! A strict reading of HTTP/1.1, written from RFC 9112 for the tests: the judge of what the proxy
//! sends. Shares no code with the proxy and uses std alone, since the fuzz targets include it.
#![allow(dead_code, reason = "the fuzz targets and the tests use different parts")]

/// Names compare without case, so they are kept in lower case; values may hold obs-text.
pub type Field = (String, Vec<u8>);

/// Why bytes are no message.
pub type Fault = &'static str;

/// Who wrote the bytes, which decides what may stand in them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Writer {
    /// Anyone: all that RFC 9112 allows.
    Anyone,
    /// The proxy: one form for each thing, no chunk extensions, no headers that `Connection` names.
    Proxy,
}

/// Where a body ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Framing {
    Empty,
    Length(u64),
    Chunked,
    UntilClose,
}

/// One whole message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Message {
    /// The three parts of the first line.
    pub start: [String; 3],
    pub fields: Vec<Field>,
    pub framing: Framing,
    pub body: Vec<u8>,
    pub trailers: Vec<Field>,
    /// How many bytes it takes, and how many of them are its head.
    pub bytes: usize,
    pub head_bytes: usize,
}

impl Message {
    pub fn all(&self, name: &str) -> Vec<&[u8]> {
        let found = self.fields.iter().filter(|(known, _)| known == name);
        found.map(|(_, value)| value.as_slice()).collect()
    }

    pub fn status(&self) -> u16 {
        self.start[1].parse().unwrap_or_default()
    }

    fn count(&self, name: &str) -> usize {
        self.all(name).len()
    }
}

/// The request at the front of `bytes`; `None` while it may still become one.
pub fn request(bytes: &[u8], writer: Writer) -> Result<Option<Message>, Fault> {
    let mut reader = Reader { bytes, at: 0, writer };
    if writer == Writer::Anyone {
        // Empty lines before a request are to be ignored (RFC 9112 §2.2).
        while reader.rest().starts_with(b"\r\n") {
            reader.at += 2;
        }
    }
    let Some(line) = reader.line()? else { return Ok(None) };
    let start = start_of_request(line, writer)?;
    let Some(fields) = reader.fields()? else { return Ok(None) };
    let mut message = Message {
        start,
        fields,
        framing: Framing::Empty,
        body: Vec::new(),
        trailers: Vec::new(),
        bytes: 0,
        head_bytes: reader.at,
    };
    let is_old = message.start[2] == "HTTP/1.0";
    match message.count("host") {
        1 if is_authority(message.all("host")[0]) => {}
        0 if is_old && writer == Writer::Anyone => {}
        _ => return Err("not exactly one Host that is an authority"),
    }
    message.framing = declared(&message, writer)?.unwrap_or(Framing::Empty);
    if is_old && message.framing == Framing::Chunked {
        return Err("Transfer-Encoding in HTTP/1.0");
    }
    check_connection(&message, writer)?;
    reader.body(message, false)
}

/// The response at the front of `bytes` to a request with this method; `has_ended` says that no
/// more bytes will come. Interim responses are messages of their own.
pub fn response(
    bytes: &[u8],
    writer: Writer,
    method: &str,
    has_ended: bool,
) -> Result<Option<Message>, Fault> {
    let mut reader = Reader { bytes, at: 0, writer };
    let Some(line) = reader.line()? else { return Ok(None) };
    let start = start_of_response(line, writer)?;
    let Some(fields) = reader.fields()? else { return Ok(None) };
    let mut message = Message {
        start,
        fields,
        framing: Framing::Empty,
        body: Vec::new(),
        trailers: Vec::new(),
        bytes: 0,
        head_bytes: reader.at,
    };
    let status = message.status();
    let declared = declared(&message, writer)?;
    let is_bare = status < 200 || status == 204 || (method == "CONNECT" && status < 300);
    if is_bare && declared.is_some() && writer == Writer::Proxy {
        return Err("framing where there can be no body");
    }
    message.framing = match declared {
        _ if is_bare || status == 304 || method == "HEAD" => Framing::Empty,
        Some(Framing::Chunked) if message.start[0] == "HTTP/1.0" => {
            return Err("Transfer-Encoding in HTTP/1.0");
        }
        declared => declared.unwrap_or(Framing::UntilClose),
    };
    check_connection(&message, writer)?;
    reader.body(message, has_ended)
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
    writer: Writer,
}

impl<'a> Reader<'a> {
    fn rest(&self) -> &'a [u8] {
        &self.bytes[self.at..]
    }

    /// The next line without its CRLF.
    fn line(&mut self) -> Result<Option<&'a [u8]>, Fault> {
        let rest = self.rest();
        for (at, byte) in rest.iter().enumerate() {
            match (byte, rest.get(at + 1)) {
                (b'\n', _) => return Err("bare LF"),
                (b'\r', None) => return Ok(None),
                (b'\r', Some(b'\n')) => {
                    self.at += at + 2;
                    return Ok(Some(&rest[..at]));
                }
                (b'\r', Some(_)) => return Err("bare CR"),
                (b'\t' | b' '..=b'~' | 0x80.., _) => {}
                _ => return Err("control character"),
            }
        }
        Ok(None)
    }

    /// Fields up to the empty line.
    fn fields(&mut self) -> Result<Option<Vec<Field>>, Fault> {
        let mut fields = Vec::new();
        loop {
            let Some(line) = self.line()? else { return Ok(None) };
            if line.is_empty() {
                return Ok(Some(fields));
            }
            let colon = line.iter().position(|byte| *byte == b':').ok_or("no colon")?;
            let (name, value) = (&line[..colon], trim(&line[colon + 1..]));
            if !is_token(name) {
                return Err("a field's name is no token");
            }
            fields.push((text(name).to_ascii_lowercase(), value.to_vec()));
        }
    }

    fn body(mut self, message: Message, has_ended: bool) -> Result<Option<Message>, Fault> {
        let mut message = message;
        match message.framing {
            Framing::Empty => {}
            Framing::Length(length) => {
                let rest = self.rest();
                let Some(body) = usize::try_from(length).ok().and_then(|end| rest.get(..end))
                else {
                    return Ok(None);
                };
                message.body = body.to_vec();
                self.at += body.len();
            }
            Framing::UntilClose if !has_ended => return Ok(None),
            Framing::UntilClose => {
                message.body = self.rest().to_vec();
                self.at = self.bytes.len();
            }
            Framing::Chunked => {
                loop {
                    let Some(line) = self.line()? else { return Ok(None) };
                    let size = self.chunk_size(line)?;
                    if size == 0 {
                        break;
                    }
                    let rest = self.rest();
                    let Some(data) = usize::try_from(size).ok().and_then(|end| rest.get(..end))
                    else {
                        return Ok(None);
                    };
                    message.body.extend_from_slice(data);
                    self.at += data.len();
                    match self.rest() {
                        [b'\r', b'\n', ..] => self.at += 2,
                        [] | [b'\r'] => return Ok(None),
                        _ => return Err("no CRLF after a chunk"),
                    }
                }
                let Some(trailers) = self.fields()? else { return Ok(None) };
                if trailers.iter().any(|(name, _)| FRAMING_FIELDS.contains(&name.as_str())) {
                    return Err("a trailer about framing");
                }
                message.trailers = trailers;
            }
        }
        message.bytes = self.at;
        Ok(Some(message))
    }

    fn chunk_size(&self, line: &[u8]) -> Result<u64, Fault> {
        let digits = line.iter().take_while(|byte| byte.is_ascii_hexdigit()).count();
        if digits == 0 || digits > 16 {
            return Err("a chunk's size is no number");
        }
        let size = u64::from_str_radix(&text(&line[..digits]), 16).map_err(|_| "chunk size")?;
        match (&line[digits..], self.writer) {
            ([], _) => Ok(size),
            (extensions, Writer::Anyone) if are_extensions(extensions) => Ok(size),
            _ => Err("something after a chunk's size"),
        }
    }
}

/// `;name`, `;name=token`, `;name="quoted"`, again and again. RFC 9112 §7.1.1 has BWS around both
/// signs, which a sender must not generate; it counts as a fault here.
fn are_extensions(mut rest: &[u8]) -> bool {
    while let Some(after) = rest.strip_prefix(b";") {
        let name = after.iter().take_while(|byte| is_token_byte(**byte)).count();
        rest = &after[name..];
        if name == 0 {
            return false;
        }
        let Some(value) = rest.strip_prefix(b"=") else { continue };
        let Some(quoted) = value.strip_prefix(b"\"") else {
            let token = value.iter().take_while(|byte| is_token_byte(**byte)).count();
            rest = &value[token..];
            if token == 0 {
                return false;
            }
            continue;
        };
        let mut at = 0;
        loop {
            match quoted.get(at) {
                None => return false,
                Some(b'"') => break,
                Some(b'\\') if quoted.get(at + 1).is_some() => at += 2,
                Some(_) => at += 1,
            }
        }
        rest = &quoted[at + 1..];
    }
    rest.is_empty()
}

fn start_of_request(line: &[u8], writer: Writer) -> Result<[String; 3], Fault> {
    let parts: Vec<_> = line.split(|byte| *byte == b' ').collect();
    let [method, target, version] = parts[..] else { return Err("not three words") };
    if !is_token(method) {
        return Err("the method is no token");
    }
    match version {
        b"HTTP/1.1" => {}
        b"HTTP/1.0" if writer == Writer::Anyone => {}
        _ => return Err("another version"),
    }
    let is_plain = target.iter().all(|byte| byte.is_ascii_graphic() && *byte != b'#');
    let has_form = if method == b"CONNECT" {
        has_port(target)
    } else {
        target.starts_with(b"/")
            || (target == b"*" && method == b"OPTIONS")
            || (writer == Writer::Anyone && is_absolute(target))
    };
    if !is_plain || !has_form {
        return Err("the target has no form");
    }
    Ok([text(method), text(target), text(version)])
}

fn start_of_response(line: &[u8], writer: Writer) -> Result<[String; 3], Fault> {
    let mut parts = line.splitn(3, |byte| *byte == b' ');
    let version = parts.next().unwrap_or_default();
    let status = parts.next().unwrap_or_default();
    // Some servers leave out the space where there is no reason, and every reader takes that.
    let reason = parts.next().unwrap_or_default();
    let is_known = version == b"HTTP/1.1" || (writer == Writer::Anyone && version == b"HTTP/1.0");
    let is_status = matches!(status, [b'1'..=b'5', b'0'..=b'9', b'0'..=b'9']);
    if !is_known || !is_status {
        return Err("no version or no status");
    }
    Ok([text(version), text(status), text(reason)])
}

/// What the fields say of the body's end (RFC 9112 §6).
fn declared(message: &Message, writer: Writer) -> Result<Option<Framing>, Fault> {
    let (lengths, codings) = (message.all("content-length"), message.all("transfer-encoding"));
    match (&lengths[..], &codings[..]) {
        ([], []) => Ok(None),
        ([], [coding]) if coding.eq_ignore_ascii_case(b"chunked") => Ok(Some(Framing::Chunked)),
        ([first, others @ ..], []) => {
            let is_number = !first.is_empty() && first.iter().all(u8::is_ascii_digit);
            let length = text(first).parse::<u64>().ok().filter(|_| is_number);
            let length = length.ok_or("Content-Length is no number")?;
            let are_same = others.iter().all(|other| {
                other.iter().all(u8::is_ascii_digit) && text(other).parse() == Ok(length)
            });
            if !are_same || (!others.is_empty() && writer == Writer::Proxy) {
                return Err("several Content-Length");
            }
            Ok(Some(Framing::Length(length)))
        }
        ([], _) => Err("Transfer-Encoding is not exactly chunked"),
        _ => Err("Content-Length and Transfer-Encoding"),
    }
}

/// No field may stand in what the proxy sends that its `Connection` names.
fn check_connection(message: &Message, writer: Writer) -> Result<(), Fault> {
    for value in message.all("connection") {
        for option in value.split(|byte| *byte == b',').map(trim) {
            let name = text(option).to_ascii_lowercase();
            if FRAMING_FIELDS[..3].contains(&name.as_str()) {
                return Err("Connection names a framing field");
            }
            let is_own = matches!(name.as_str(), "te" | "upgrade");
            if writer == Writer::Proxy && !is_own && message.count(&name) > 0 {
                return Err("a field that Connection names");
            }
        }
    }
    let names_upgrade = message.all("connection").iter().any(|value| {
        value.split(|byte| *byte == b',').any(|name| trim(name).eq_ignore_ascii_case(b"upgrade"))
    });
    if writer == Writer::Proxy && message.count("upgrade") > 0 && !names_upgrade {
        return Err("Upgrade without Connection");
    }
    Ok(())
}

/// `http://authority` with an optional path and query (RFC 9112 §3.2.2).
fn is_absolute(target: &[u8]) -> bool {
    let lower = target.to_ascii_lowercase();
    let rest = lower.strip_prefix(b"http://").or_else(|| lower.strip_prefix(b"https://"));
    let Some(rest) = rest else { return false };
    let end = rest.iter().position(|byte| matches!(byte, b'/' | b'?')).unwrap_or(rest.len());
    end > 0 && is_authority(&rest[..end])
}

/// `host ":" port` (RFC 9112 §3.2.3).
fn has_port(target: &[u8]) -> bool {
    let Some(colon) = target.iter().rposition(|byte| *byte == b':') else { return false };
    let port = text(&target[colon + 1..]).parse::<u16>();
    colon > 0 && port.is_ok_and(|port| port > 0) && is_authority(target)
}

/// `host [ ":" port ]` (RFC 3986 §3.2.2): a name, an IPv4 address, or an IPv6 address in brackets.
fn is_authority(value: &[u8]) -> bool {
    let (host, port) = match value.iter().position(|byte| *byte == b']') {
        Some(end) if value[0] == b'[' => {
            let is_address =
                value[1..end].iter().all(|b| b.is_ascii_hexdigit() || b":.".contains(b));
            if !is_address || !value[1..end].contains(&b':') {
                return false;
            }
            (&b""[..], &value[end + 1..])
        }
        _ => value.split_at(value.iter().position(|b| *b == b':').unwrap_or(value.len())),
    };
    let is_name = host.iter().all(|b| b.is_ascii_alphanumeric() || b"-._~%!$&'()*+,;=".contains(b));
    let is_port = match port {
        [] => true,
        [b':', digits @ ..] => digits.len() <= 5 && digits.iter().all(u8::is_ascii_digit),
        _ => false,
    };
    is_name && is_port
}

fn is_token(bytes: &[u8]) -> bool {
    !bytes.is_empty() && bytes.iter().all(|byte| is_token_byte(*byte))
}

fn is_token_byte(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&byte)
}

fn trim(bytes: &[u8]) -> &[u8] {
    let is_space = |byte: &u8| matches!(byte, b' ' | b'\t');
    let start = bytes.iter().position(|byte| !is_space(byte)).unwrap_or(bytes.len());
    let end = bytes.iter().rposition(|byte| !is_space(byte)).map_or(start, |at| at + 1);
    &bytes[start..end]
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Fields that say where the message goes or ends; the first three may not be hop-by-hop either.
const FRAMING_FIELDS: [&str; 5] =
    ["content-length", "host", "transfer-encoding", "connection", "upgrade"];
