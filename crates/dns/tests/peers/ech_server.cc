// A DNS over TLS server with the encrypted client hello of BoringSSL (as AWS-LC carries it), for the tests of our client
// against a server that we did not write. It is no part of the build: see docs/dns/ech.md for how to make it.
//
//   ech_server CERT KEY PUBLIC_NAME FORWARD_PORT MODE
//
// CERT and KEY are DER (PKCS #8) in hexadecimal. Queries go to 127.0.0.1:FORWARD_PORT over TCP. MODE is `accept` (the published
// key is the server's), `rotate` (the server has another key and sends that for a retry) or `none` (it has none). It prints the
// port, the ECHConfigList to publish in hexadecimal, and a line for each handshake: whether it succeeded, whether the hello
// was decrypted, and the name asked for.

#include <arpa/inet.h>
#include <netinet/in.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include <string>
#include <thread>
#include <vector>

#include <openssl/bytestring.h>
#include <openssl/evp.h>
#include <openssl/hpke.h>
#include <openssl/ssl.h>

using Bytes = std::vector<uint8_t>;

static void check(bool ok, const char *what) {
  if (!ok) {
    fprintf(stderr, "ech_server: %s failed\n", what);
    exit(1);
  }
}

static Bytes from_hex(const char *text) {
  Bytes bytes;
  for (; text[0] && text[1]; text += 2) {
    bytes.push_back((uint8_t)strtoul(std::string(text, 2).c_str(), nullptr, 16));
  }
  return bytes;
}

static sockaddr_in loopback(int port) {
  sockaddr_in address = {};
  address.sin_family = AF_INET;
  address.sin_port = htons((uint16_t)port);
  address.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
  return address;
}

// A new key and its ECHConfig.
static Bytes make_key(EVP_HPKE_KEY *key, uint8_t id, const char *public_name) {
  uint8_t *config = nullptr;
  size_t length = 0;
  check(EVP_HPKE_KEY_generate(key, EVP_hpke_x25519_hkdf_sha256()), "EVP_HPKE_KEY_generate");
  check(SSL_marshal_ech_config(&config, &length, id, key, public_name, 32), "SSL_marshal_ech_config");
  Bytes bytes(config, config + length);
  OPENSSL_free(config);
  return bytes;
}

static bool read_all(SSL *ssl, uint8_t *to, int length) {
  for (int done = 0; done < length;) {
    int n = SSL_read(ssl, to + done, length - done);
    if (n <= 0) return false;
    done += n;
  }
  return true;
}

static bool read_all(int fd, uint8_t *to, ssize_t length) {
  for (ssize_t done = 0; done < length;) {
    ssize_t n = read(fd, to + done, (size_t)(length - done));
    if (n <= 0) return false;
    done += n;
  }
  return true;
}

static void serve(SSL_CTX *context, int fd, int forward) {
  SSL *ssl = SSL_new(context);
  SSL_set_fd(ssl, fd);
  bool ok = SSL_accept(ssl) == 1;
  const char *name = SSL_get_servername(ssl, TLSEXT_NAMETYPE_host_name);
  printf("%s %s %s\n", ok ? "connected" : "failed", SSL_ech_accepted(ssl) ? "decrypted" : "plain", name ? name : "-");
  fflush(stdout);
  int upstream = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = loopback(forward);
  uint8_t message[2 + 65535];
  if (ok && connect(upstream, (sockaddr *)&address, sizeof address) == 0) {
    while (read_all(ssl, message, 2) && read_all(ssl, message + 2, message[0] << 8 | message[1])) {
      ssize_t length = 2 + (message[0] << 8 | message[1]);
      if (write(upstream, message, (size_t)length) != length || !read_all(upstream, message, 2)) break;
      if (!read_all(upstream, message + 2, message[0] << 8 | message[1])) break;
      if (SSL_write(ssl, message, 2 + (message[0] << 8 | message[1])) <= 0) break;
    }
  }
  close(upstream);
  SSL_free(ssl);
  close(fd);
}

int main(int count, char **arguments) {
  check(count == 6, "usage: ech_server CERT KEY PUBLIC_NAME FORWARD_PORT MODE");
  signal(SIGPIPE, SIG_IGN);
  Bytes certificate = from_hex(arguments[1]), private_key = from_hex(arguments[2]);
  const char *public_name = arguments[3];
  int forward = atoi(arguments[4]);
  std::string mode = arguments[5];

  SSL_CTX *context = SSL_CTX_new(TLS_server_method());
  CBS cbs;
  CBS_init(&cbs, private_key.data(), private_key.size());
  EVP_PKEY *key = EVP_parse_private_key(&cbs);
  check(key && SSL_CTX_use_PrivateKey(context, key), "the private key");
  check(SSL_CTX_use_certificate_ASN1(context, certificate.size(), certificate.data()), "the certificate");

  bssl::ScopedEVP_HPKE_KEY published, other;
  Bytes config = make_key(published.get(), 1, public_name);
  Bytes rotated = make_key(other.get(), 2, public_name);
  SSL_ECH_KEYS *keys = SSL_ECH_KEYS_new();
  if (mode == "accept") {
    check(SSL_ECH_KEYS_add(keys, 1, config.data(), config.size(), published.get()), "SSL_ECH_KEYS_add");
  } else if (mode == "rotate") {
    check(SSL_ECH_KEYS_add(keys, 1, rotated.data(), rotated.size(), other.get()), "SSL_ECH_KEYS_add");
  }
  if (mode != "none") {
    check(SSL_CTX_set1_ech_keys(context, keys), "SSL_CTX_set1_ech_keys");
  }

  int listener = socket(AF_INET, SOCK_STREAM, 0);
  sockaddr_in address = loopback(0);
  socklen_t length = sizeof address;
  check(bind(listener, (sockaddr *)&address, length) == 0 && listen(listener, 64) == 0, "listen");
  getsockname(listener, (sockaddr *)&address, &length);
  printf("%d\n%02zx%02zx", ntohs(address.sin_port), config.size() >> 8, config.size() & 0xff);
  for (uint8_t byte : config) printf("%02x", byte);
  printf("\n");
  fflush(stdout);
  for (;;) {
    int fd = accept(listener, nullptr, nullptr);
    if (fd >= 0) std::thread(serve, context, fd, forward).detach();
  }
}
