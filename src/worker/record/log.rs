//! What the access log gets of a request: the texts of its head, kept while they are there, and a
//! line at its end. Does nothing where there is no access log.

use std::time::Instant;

use crate::access_log::{Entry, Field};
use crate::clock;
use crate::http1::client;
use crate::http1::forward::{self, Additions};
use crate::http1::request::RequestHead;
use crate::http1::trace;
use crate::worker::record::Record;

impl Record<'_> {
    /// Keeps what a line needs of the head, whose bytes will be gone.
    pub(super) fn capture(&self, head: &RequestHead<'_, '_>) {
        let Some(pen) = &self.worker.access_log else { return };
        let trusted = &self.worker.config.forward.trusted_proxies;
        let client = client::address_of(head.headers, self.peer.address.client.ip(), trusted);
        self.facts.client.set(Some(client));
        let mut captured = self.facts.captured.borrow_mut();
        captured.keep(Field::Method, &[head.method.as_bytes()]);
        let target = &head.target;
        captured.keep(Field::Target, &[target.prefix.as_bytes(), target.rest.as_bytes()]);
        if let Some(host) = head.host {
            captured.keep(Field::Host, &[host]);
        }
        for (index, name) in pen.borrow().headers().iter().enumerate() {
            let mut headers = head.headers.iter();
            if let Some(header) = headers.find(|it| it.name.eq_ignore_ascii_case(name)) {
                captured.keep(Field::Header(index), &[header.value]);
            }
        }
    }

    /// Keeps the ids that a backend gets with it: the client's, or those that were made.
    pub fn keep_ids(&self, head: &RequestHead<'_, '_>, additions: &Additions<'_>) {
        if self.worker.access_log.is_none() {
            return;
        }
        let mut captured = self.facts.captured.borrow_mut();
        let made = additions.request_id.map(trace::hex_of);
        let theirs = forward::request_id_of(head);
        if let Some(id) = theirs.or(made.as_ref().map(|id| &id[..])) {
            captured.keep(Field::RequestId, &[id]);
        }
        let made = additions.traceparent.as_ref().map(|it| &it[..]);
        if let Some(parent) = made.or_else(|| trace::of(head.headers, head.names_headers)) {
            captured.keep(Field::TraceId, &[trace::id_of(parent)]);
        }
    }

    /// These bytes have come and are not used: what is no request, or what is left of one.
    pub fn received_in_vain(&self, bytes: &[u8]) {
        self.received(bytes.len());
        if self.worker.access_log.is_some() && self.facts.head_at.get().is_none() {
            let end = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
            let line = bytes.get(..end).unwrap_or_default();
            let line = line.strip_suffix(b"\r").unwrap_or(line);
            self.facts.captured.borrow_mut().keep(Field::FirstLine, &[line]);
        }
    }

    /// Writes its line, if it is to have one.
    pub(super) fn log(&self, begun: Instant) {
        let Some(pen) = &self.worker.access_log else { return };
        let facts = &*self.facts;
        let is_failure = facts.cause.get().is_some() || facts.status.get() >= SERVER_ERROR;
        // A panic may have come while it was written.
        let Ok(mut pen) = pen.try_borrow_mut() else { return };
        if !pen.wants(is_failure) {
            return;
        }
        let snapshot = facts.snapshot.borrow();
        let pool = facts.pool.get().zip(snapshot.as_ref());
        let pool = pool.and_then(|(pool, snapshot)| snapshot.pools.get(pool.0));
        let index = facts.endpoint.get().map(|(_, index)| index);
        let endpoint = pool.zip(index).and_then(|(pool, index)| pool.endpoints.get(index));
        let since = |from: Option<Instant>, to: Option<Instant>| {
            from.zip(to).map(|(from, to)| to.saturating_duration_since(from))
        };
        let captured = facts.captured.borrow();
        let peer = self.peer.address.client;
        let total = clock::now().saturating_duration_since(begun);
        pen.log(self.worker.lane(), begun, |begun| Entry {
            begun,
            client: facts.client.get().unwrap_or_else(|| peer.ip()),
            peer,
            local: self.peer.address.local,
            captured: &captured,
            version: facts.version.get(),
            status: facts.status.get(),
            is_own_answer: facts.is_own_answer.get(),
            cause: facts.cause.get(),
            pool: pool.map(|pool| pool.config.name.as_str()),
            backend: endpoint.map(|endpoint| endpoint.id.as_str()),
            retries: facts.retries.get(),
            epoch: facts.epoch.get(),
            worker: self.worker.id(),
            is_reused: index.map(|_| facts.is_reused.get()),
            number: facts.number.get(),
            received: facts.received.get(),
            sent: facts.sent.get(),
            sent_in_heads: facts.sent_in_heads.get(),
            head: since(facts.begun_at.get(), facts.head_at.get()),
            queue: facts.queued.get(),
            connect: facts.connecting.get(),
            first_byte: since(facts.placed_at.get(), facts.answered_at.get()),
            total,
        });
    }
}

/// The first status that says somebody is at fault but the client (RFC 9110 §15.6).
const SERVER_ERROR: u16 = 500;
