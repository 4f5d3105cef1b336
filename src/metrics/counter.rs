//! What a worker counts for itself, and what it counts for each backend.

/// What a worker counts, besides the causes of failure.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum Counter {
    /// Client connections taken up, by the worker that serves them.
    Accepted,
    /// Client connections open now (a gauge).
    ClientsOpen,
    /// Requests whose head was parsed.
    Requests,
    /// Answers of backends that were relayed whole.
    Relayed,
    /// Attempts on another endpoint after a failed one.
    Retries,
    /// Connections made to backends.
    Connects,
    /// Requests that went over a pooled connection.
    Reuses,
    /// Pooled connections found dead or talking at checkout.
    PoolStale,
    /// Times that accepting paused for want of file descriptors or memory.
    AcceptPauses,
    /// Connections that became tunnels.
    Tunnels,
    /// Tunnels open now (a gauge).
    TunnelsOpen,
    /// Sweeps over the deadlines.
    Sweeps,
    /// Operations put on the ring, up to the last sweep; 0 on epoll.
    RingSubmissions,
    /// Operations that the ring has completed, likewise.
    RingCompletions,
    /// Failures that the control thread was not told of, its channel being full.
    OutcomesDropped,
    /// Retries that the budget did not allow.
    RetriesDenied,
    /// Requests that waited for a place on an endpoint.
    Queued,
    /// Requests that wait for a place now (a gauge).
    Waiting,
    /// Client connections handed to another worker, by the one that accepted them.
    HandedOver,
    /// Bytes that came from clients, of requests that are over.
    FromClients,
    /// Bytes that went to clients, of requests that are over.
    ToClients,
    /// Lines of the access log that were made, those that were dropped later too.
    AccessLogLines,
    /// Lines of the access log that were dropped, since too many waited to be written.
    AccessLogDropped,
}

impl Counter {
    pub(super) const COUNT: usize = Counter::AccessLogDropped as usize + 1;
    /// Those that say how much there is now: a worker that takes a lane over begins with none.
    pub(super) const GAUGES: [Counter; 3] =
        [Counter::ClientsOpen, Counter::TunnelsOpen, Counter::Waiting];
}

/// What a worker counts for each backend, besides its answers and their times.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum BackendCounter {
    /// Connections made.
    Connects,
    /// Attempts that went over a kept connection.
    Reuses,
    /// Attempts that failed by its fault.
    Failures,
    /// Attempts that another followed.
    Retries,
    /// Bytes sent, of attempts that are over.
    Sent,
    /// Bytes received, of attempts that are over.
    Received,
}

impl BackendCounter {
    pub(super) const COUNT: usize = BackendCounter::Received as usize + 1;
}
