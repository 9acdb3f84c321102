//! What browsers ask of BoringSSL and the `boring` crate does not wrap.
//!
//! Application settings, trust anchors, key shares, the order of TLS 1.3 suites; contexts that keep certificates as bytes, and
//! tickets that can only be offered in the context that they came from. What is deliberately not here: any decision.

mod context;
mod hello;
mod ticket;

pub use context::{
    client_context, peer_certificates, set_certificates_max, set_reverify_on_resume, shed_configuration,
};
pub use hello::{
    add_application_settings, set_groups, set_key_shares, set_new_application_settings, set_tls13_ciphers,
    set_trust_anchors,
};
pub use ticket::{Ticket, keep_tickets};

use std::ffi::c_int;

use boring::error::ErrorStack;

/// BoringSSL's functions say 1 for success.
fn check(returned: c_int) -> Result<(), ErrorStack> {
    if returned == 1 { Ok(()) } else { Err(ErrorStack::get()) }
}
