//! Requests that are over, by the class of their method and of the status that the client got.

use crate::metrics::Method;

/// The class of a status (RFC 9110 §15).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(u8)]
pub enum StatusClass {
    /// No answer was begun.
    None,
    /// 1xx: the connection was switched to another protocol.
    Informational,
    /// 2xx.
    Successful,
    /// 3xx.
    Redirection,
    /// 4xx.
    ClientError,
    /// 5xx and above.
    ServerError,
}

impl StatusClass {
    /// Every class, in the order of its number.
    pub const ALL: [StatusClass; 6] = [
        StatusClass::None,
        StatusClass::Informational,
        StatusClass::Successful,
        StatusClass::Redirection,
        StatusClass::ClientError,
        StatusClass::ServerError,
    ];

    /// The class of a status; 0 is no status.
    #[must_use]
    pub fn of(status: u16) -> StatusClass {
        match status {
            0..100 => StatusClass::None,
            100..200 => StatusClass::Informational,
            200..300 => StatusClass::Successful,
            300..400 => StatusClass::Redirection,
            400..500 => StatusClass::ClientError,
            500.. => StatusClass::ServerError,
        }
    }

    /// The name of the class.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            StatusClass::None => "none",
            StatusClass::Informational => "1xx",
            StatusClass::Successful => "2xx",
            StatusClass::Redirection => "3xx",
            StatusClass::ClientError => "4xx",
            StatusClass::ServerError => "5xx",
        }
    }
}

/// A request that is over.
#[derive(Clone, Copy, Debug)]
pub struct Finished {
    /// The class of its method.
    pub method: Method,
    /// The status that the client got; 0 for none.
    pub status: u16,
    /// Who gave the answer.
    pub by: By,
    /// Bytes that came from the client for it.
    pub received: u64,
    /// Bytes that went to the client for it.
    pub sent: u64,
}

/// Who answered a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum By {
    /// The endpoint of this slot.
    Endpoint(u32),
    /// corelane or nobody, when it had been routed to the pool of this index,
    Pool(usize),
    /// or before that.
    None,
}

/// Where a request is counted among `CELLS` numbers.
pub(super) fn cell_of(method: Method, class: StatusClass) -> usize {
    method as usize * StatusClass::ALL.len() + class as usize
}

/// The requests of such numbers that are not 0, by both classes.
pub(super) fn counts_of(
    cells: &[u64],
) -> impl Iterator<Item = (Method, StatusClass, u64)> + use<'_> {
    let classes =
        Method::ALL.into_iter().flat_map(|method| StatusClass::ALL.map(|class| (method, class)));
    let counted = classes.zip(cells).map(|((method, class), count)| (method, class, *count));
    counted.filter(|(_, _, count)| *count > 0)
}

/// The numbers that requests are counted in.
pub(super) const CELLS: usize = Method::ALL.len() * StatusClass::ALL.len();

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_class() {
        for (status, name) in [
            (0, "none"),
            (101, "1xx"),
            (200, "2xx"),
            (299, "2xx"),
            (304, "3xx"),
            (499, "4xx"),
            (500, "5xx"),
            (599, "5xx"),
            (999, "5xx"),
        ] {
            assert_eq!(StatusClass::of(status).name(), name, "{status}");
        }
        for (number, class) in StatusClass::ALL.into_iter().enumerate() {
            assert_eq!(class as usize, number);
        }
    }

    #[test]
    fn each_pair_of_classes_has_its_cell() {
        let mut cells = [0; CELLS];
        cells[cell_of(Method::Post, StatusClass::ClientError)] = 3;
        cells[cell_of(Method::Other, StatusClass::ServerError)] = 1;
        let counts: Vec<_> = counts_of(&cells).collect();
        let expected = [
            (Method::Post, StatusClass::ClientError, 3),
            (Method::Other, StatusClass::ServerError, 1),
        ];
        assert_eq!(counts, expected);
        assert_eq!(cell_of(Method::Other, StatusClass::ServerError), CELLS - 1);
    }
}
