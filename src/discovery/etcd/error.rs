//! Why etcd told nothing: a row for each cause, with what to do.

use std::fmt;

/// Why etcd told nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Failure {
    /// No connection to this member, or it broke.
    Unreachable(String, String),
    /// A member answered with an error: its status and message.
    Refused(u16, String),
    /// An answer that etcd would not give.
    Invalid(String),
    /// An answer, a line or a set of keys of more than this.
    TooLarge(&'static str, usize),
    /// The watch ended, and why.
    Cancelled(String),
    /// The watch is silent about changes that etcd has.
    Stale,
}

impl Failure {
    /// Its name in the log.
    pub(super) fn cause(&self) -> &'static str {
        match self {
            Failure::Unreachable(..) => "etcd-unreachable",
            Failure::Refused(..) => "etcd-refused",
            Failure::Invalid(_) => "etcd-invalid",
            Failure::TooLarge(..) => "etcd-too-large",
            Failure::Cancelled(_) => "etcd-cancelled",
            Failure::Stale => "etcd-stale",
        }
    }
}

impl fmt::Display for Failure {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Failure::Unreachable(member, reason) => {
                write!(f, "{member}: {reason}; check that etcd runs there and may be reached")
            }
            Failure::Refused(status, reason) => {
                write!(f, "etcd answered {status}: {reason}; check --etcd-user and its rights")
            }
            Failure::Invalid(reason) => {
                write!(f, "not an answer of etcd v3: {reason}; check the URL of etcd")
            }
            Failure::TooLarge(what, max) => {
                write!(f, "more than {max} {what}; check what is written under --etcd-prefix")
            }
            Failure::Cancelled(reason) => {
                write!(f, "the watch ended: {reason}; all keys are read again")
            }
            Failure::Stale => write!(f, "the watch is silent; all keys are read again"),
        }
    }
}
