//! Contexts that keep certificates as bytes, and what a handshake leaves behind.

#![expect(unsafe_code, reason = "calls functions of BoringSSL that boring does not wrap")]

use std::{slice, sync::OnceLock};

use boring::{
    error::ErrorStack,
    ssl::{SslContextBuilder, SslMethod, SslRef},
};
use boring_sys as ffi;
use foreign_types_shared::ForeignTypeRef;

/// Makes a context of a client that keeps certificates as the bytes that were sent, each of them once in the process.
///
/// Nothing is verified before a callback is set with
/// [`set_custom_verify_callback`](SslContextBuilder::set_custom_verify_callback); [`peer_certificates`] gives it the bytes.
/// Functions of boring that give or take an X.509 object panic on such a context.
///
/// # Errors
/// When there is no memory.
pub fn client_context() -> Result<SslContextBuilder, ErrorStack> {
    // SAFETY: what must not be called on such a context is what gives or takes X.509 objects of the peer; boring checks for that
    // at run time (`SslContextRef::check_x509`) and panics, and this workspace calls none of it.
    let method = unsafe { SslMethod::tls_with_buffer() };
    let context = SslContextBuilder::new(method)?;
    // SAFETY: both pointers are valid, the context is not in use yet, and the pool lives until the process ends.
    unsafe { ffi::SSL_CTX_set0_buffer_pool(context.as_ptr(), pool().0) };
    Ok(context)
}

/// The certificates that the peer sent, as DER, its own first. Empty before it sent any.
pub fn peer_certificates(ssl: &SslRef) -> Vec<&[u8]> {
    // SAFETY: `ssl` is valid; what comes back is null, or a list that the connection owns until it is changed.
    let list = unsafe { ffi::SSL_get0_peer_certificates(ssl.as_ptr()) };
    let stack = list.cast::<ffi::OPENSSL_STACK>();
    // SAFETY: a typed list is an `OPENSSL_STACK`, as BoringSSL's own macros have it; null counts as empty.
    let count = unsafe { ffi::OPENSSL_sk_num(stack) };
    (0..count).map(|index| certificate(ssl, stack, index)).collect()
}

/// One of the `stack` of certificates of `ssl`, for as long as `ssl` is not changed.
fn certificate(_ssl: &SslRef, stack: *const ffi::OPENSSL_STACK, index: usize) -> &[u8] {
    // SAFETY: `stack` is a list of CRYPTO_BUFFER with more than `index` entries.
    let buffer = unsafe { ffi::OPENSSL_sk_value(stack, index) }.cast::<ffi::CRYPTO_BUFFER>();
    // SAFETY: lists of certificates have no null entries.
    let bytes = unsafe { ffi::CRYPTO_BUFFER_data(buffer) };
    // SAFETY: as above.
    let length = unsafe { ffi::CRYPTO_BUFFER_len(buffer) };
    if length == 0 {
        return &[];
    }
    // SAFETY: a CRYPTO_BUFFER never changes, and the connection holds it for as long as `_ssl` is borrowed.
    unsafe { slice::from_raw_parts(bytes, length) }
}

/// Has the verification callback asked about the stored certificates when a session is resumed, not in full handshakes alone.
pub fn set_reverify_on_resume(context: &mut SslContextBuilder, enabled: bool) {
    // SAFETY: the context is valid and borrowed exclusively.
    unsafe { ffi::SSL_CTX_set_reverify_on_resume(context.as_ptr(), enabled.into()) };
}

/// Limits the certificates that a peer may send, compressed or not, to `bytes` in all. BoringSSL's default is 100 KiB.
pub fn set_certificates_max(context: &mut SslContextBuilder, bytes: usize) {
    // SAFETY: the context is valid and borrowed exclusively.
    unsafe { ffi::SSL_CTX_set_max_cert_list(context.as_ptr(), bytes) };
}

/// Has the connection forget after its handshake what only the handshake needed.
pub fn shed_configuration(ssl: &mut SslRef) {
    // SAFETY: `ssl` is valid and borrowed exclusively. What reads the configuration afterwards finds null and fails in BoringSSL.
    unsafe { ffi::SSL_set_shed_handshake_config(ssl.as_ptr(), 1) };
}

/// A pool of buffers, in which equal certificates share one copy. A certificate leaves it with its last user.
struct Pool(*mut ffi::CRYPTO_BUFFER_POOL);

// SAFETY: BoringSSL guards a pool with a lock of its own.
unsafe impl Send for Pool {}

// SAFETY: as above.
unsafe impl Sync for Pool {}

/// The one pool of the process; without memory for it, none.
fn pool() -> &'static Pool {
    static POOL: OnceLock<Pool> = OnceLock::new();
    POOL.get_or_init(|| {
        // SAFETY: takes nothing; gives null or a pool, which is never freed since contexts do not count their uses of it.
        Pool(unsafe { ffi::CRYPTO_BUFFER_POOL_new() })
    })
}
