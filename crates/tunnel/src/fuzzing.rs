//! What fuzz targets need of private modules. Nobody else may: there are no promises here.

/// Feeds the SOCKS codec of the listeners: the size of the pieces, whether users are needed, and what a client sends.
///
/// # Panics
/// Where something does not hold that must hold for whatever comes.
pub fn socks(data: &[u8]) {
    crate::socks::invariants::check(data);
}
