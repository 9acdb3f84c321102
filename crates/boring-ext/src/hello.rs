//! Fields of the ClientHello.

#![expect(unsafe_code, reason = "calls functions of BoringSSL that boring does not wrap")]

use std::ptr;

use boring::{
    error::ErrorStack,
    ssl::{SslContextBuilder, SslRef},
};
use boring_sys as ffi;
use foreign_types_shared::ForeignTypeRef;

use crate::check;

/// Offers these named groups, by code point and in this order (RFC 8446 section 4.2.7).
///
/// # Errors
/// When BoringSSL lacks one of them, or one is there twice.
pub fn set_groups(context: &mut SslContextBuilder, groups: &[u16]) -> Result<(), ErrorStack> {
    // SAFETY: the context is valid and borrowed exclusively; the groups are copied.
    check(unsafe { ffi::SSL_CTX_set1_group_ids(context.as_ptr(), groups.as_ptr(), groups.len()) })
}

/// Offers these suites of TLS 1.3, by code point and in this order, whatever the hardware is fast at.
///
/// # Errors
/// When BoringSSL lacks one of them, or one is there twice.
pub fn set_tls13_ciphers(context: &mut SslContextBuilder, ciphers: &[u16]) -> Result<(), ErrorStack> {
    // SAFETY: the context is valid and borrowed exclusively; the suites are copied; flags may be null.
    check(unsafe { ffi::SSL_CTX_set1_tls13_ciphers(context.as_ptr(), ciphers.as_ptr(), ptr::null(), ciphers.len()) })
}

/// Asks for a certificate of one of these trust anchors (draft-ietf-tls-trust-anchor-ids): identifiers, each after a byte of
/// length. An empty list sends an empty extension.
///
/// # Errors
/// When the list is malformed.
pub fn set_trust_anchors(context: &mut SslContextBuilder, ids: &[u8]) -> Result<(), ErrorStack> {
    // SAFETY: the context is valid and borrowed exclusively; the bytes are copied.
    check(unsafe { ffi::SSL_CTX_set1_requested_trust_anchors(context.as_ptr(), ids.as_ptr(), ids.len()) })
}

/// Sends key shares for these groups, which must be among those offered and in their order (RFC 8446 section 4.2.8).
///
/// # Errors
/// When one is not offered or there twice.
pub fn set_key_shares(ssl: &mut SslRef, groups: &[u16]) -> Result<(), ErrorStack> {
    // SAFETY: `ssl` is valid and borrowed exclusively; the groups are copied.
    check(unsafe { ffi::SSL_set1_client_key_shares(ssl.as_ptr(), groups.as_ptr(), groups.len()) })
}

/// Offers application-layer settings for `protocol`, which must be among the protocols offered (draft-vvv-tls-alps).
///
/// # Errors
/// When there is no memory.
pub fn add_application_settings(ssl: &mut SslRef, protocol: &[u8], settings: &[u8]) -> Result<(), ErrorStack> {
    // SAFETY: `ssl` is valid and borrowed exclusively; the bytes are copied.
    check(unsafe {
        ffi::SSL_add_application_settings(
            ssl.as_ptr(),
            protocol.as_ptr(),
            protocol.len(),
            settings.as_ptr(),
            settings.len(),
        )
    })
}

/// Sends application-layer settings at code point 17613 instead of 17513.
pub fn set_new_application_settings(ssl: &mut SslRef, new: bool) {
    // SAFETY: `ssl` is valid and borrowed exclusively.
    unsafe { ffi::SSL_set_alps_use_new_codepoint(ssl.as_ptr(), new.into()) };
}
