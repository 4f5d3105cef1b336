//! Why the control thread, or etcd, does not do what is asked of it, each with the next step.
//!
//! Decides nothing; the admin API gives each a kind, and so a status.

use std::fmt;

use crate::config::{BACKENDS_MAX, Source};
use crate::control::handle::SNAPSHOTS_MAX;
use crate::control::view::Revision;
use crate::discovery::Unwritten;
use crate::upstream::snapshot::POOLS_MAX;

/// Why a command was refused; it changed nothing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// There is no pool of this name.
    UnknownPool(String),
    /// The pool has no such backend.
    UnknownBackend(String),
    /// The pool has this backend already.
    Exists(String),
    /// Somebody else changed it first: its revision is this one now.
    Conflict(Revision),
    /// There are as many backends as there can be.
    TooMany,
    /// There were as many pools as there can be in the life of a process.
    TooManyPools,
    /// A value is out of its range.
    Invalid(String),
    /// The epoch is none of the last snapshots'.
    UnknownEpoch(u64),
    /// Changes are written to etcd, and this backend is another source's.
    Elsewhere(String, Source),
    /// The backend's key in etcd holds something else.
    KeyTaken(String),
    /// Somebody else was first to change it in etcd.
    Overtaken(String),
    /// etcd had told of it and has it no more.
    NotInEtcd(String),
    /// etcd could not be had, and why; nothing changed.
    EtcdAway(String),
    /// etcd has refused it, and why; nothing changed.
    EtcdRefused(String),
    /// etcd was asked, and nobody knows whether it has done it.
    EtcdUnknown(String),
    /// The control thread has ended.
    Gone,
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::UnknownPool(name) => write!(f, "there is no pool {name:?}"),
            Refusal::UnknownBackend(id) => write!(f, "there is no backend {id:?}"),
            Refusal::Exists(id) => {
                write!(f, "there is a backend {id:?} already; change that one instead")
            }
            Refusal::Conflict(revision) => write!(
                f,
                "somebody else has changed it, its revision is now {revision}; read it again and \
                 decide anew"
            ),
            Refusal::TooMany => write!(
                f,
                "there can be no more than {BACKENDS_MAX} backends; remove one, and wait until \
                 requests in flight on removed ones have ended"
            ),
            Refusal::TooManyPools => write!(
                f,
                "there were {POOLS_MAX} pools, which is as many as one process can have; restart \
                 corelane"
            ),
            Refusal::Invalid(reason) => f.write_str(reason),
            Refusal::UnknownEpoch(epoch) => write!(
                f,
                "epoch {epoch} is not among the last {SNAPSHOTS_MAX} snapshots; list them first"
            ),
            Refusal::Elsewhere(id, Source::Api) => write!(
                f,
                "{id:?} was changed here, which hides what etcd says of it; forget that first, with \
                 POST to its /reset"
            ),
            Refusal::Elsewhere(id, source) => write!(
                f,
                "{id:?} comes from {source}, and changes are written to etcd; change it in {source}, \
                 or start corelane with --admin-writes local"
            ),
            Refusal::KeyTaken(key) => write!(
                f,
                "the key {key:?} in etcd holds something else, which would be lost; delete it first"
            ),
            Refusal::Overtaken(id) => write!(
                f,
                "somebody else has changed {id:?} in etcd meanwhile; read it again and decide anew"
            ),
            Refusal::NotInEtcd(id) => write!(
                f,
                "etcd has {id:?} no more: somebody removed it just now, or etcd lost its data and it \
                 stays until its service may have registered again; POST it to have it in etcd"
            ),
            Refusal::EtcdAway(reason) | Refusal::EtcdRefused(reason) => {
                write!(f, "nothing has changed: {reason}")
            }
            Refusal::EtcdUnknown(reason) => {
                write!(f, "etcd may have done it or not; read it again in some seconds: {reason}")
            }
            Refusal::Gone => f.write_str("the control thread has ended; restart corelane"),
        }
    }
}

impl std::error::Error for Refusal {}

impl From<Unwritten> for Refusal {
    fn from(unwritten: Unwritten) -> Refusal {
        match unwritten {
            Unwritten::Untouched(reason) => Refusal::EtcdAway(reason),
            Unwritten::Refused(reason) => Refusal::EtcdRefused(reason),
            Unwritten::Unknown(reason) => Refusal::EtcdUnknown(reason),
            Unwritten::Taken(key) => Refusal::KeyTaken(key),
        }
    }
}
