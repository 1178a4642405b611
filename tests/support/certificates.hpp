// SPDX-License-Identifier: MIT
//
// Certificates for TLS on loopback, made afresh for each test in a temporary folder: an authority,
// and servers that it vouches for, rightly or not. Nothing secret outlives the test.

#pragma once

#include <atomic>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <stdexcept>
#include <string>

#if !defined(HUB_SESSION_NO_OPENSSL)
#include <openssl/ec.h>
#include <openssl/evp.h>
#include <openssl/pem.h>
#include <openssl/x509.h>
#include <openssl/x509v3.h>
#endif

#include "scratch.hpp"

namespace hub_test {

// What a server shows: two PEM files.
struct server_identity {
  std::string certificate_file;
  std::string key_file;
};

// What is said in a certificate, and for how long from now it holds.
struct certificate_wish {
  std::string alternative_names = "IP:127.0.0.1,DNS:localhost";
  long valid_from_seconds = -3600;
  long valid_until_seconds = 3600;
  bool self_signed = false;
  std::string usage = "serverAuth";
  std::string key_password = {};  // the key's file is encrypted with it
};

#if defined(HUB_SESSION_NO_OPENSSL)
// For tests that speak in the clear as well: nothing here has a certificate.
struct certificate_authority {
  certificate_authority() {}
  std::string file() const { return {}; }
  server_identity issue() const { return {}; }
};
#else
// A certificate authority that nobody knows but who is given its file.
class certificate_authority {
 public:
  certificate_authority() : key_(make_key()), certificate_(X509_new()) {
    describe(*certificate_, *key_, "hub_session test authority", {});
    add_extension(*certificate_, *certificate_, NID_basic_constraints, "critical,CA:TRUE");
    add_extension(*certificate_, *certificate_, NID_key_usage, "critical,keyCertSign,cRLSign");
    add_extension(*certificate_, *certificate_, NID_subject_key_identifier, "hash");
    sign(*certificate_, *certificate_, *key_);
    write_certificate(file(), *certificate_);
  }

  // The PEM file that a client is to trust.
  std::string file() const { return (folder_ / "authority.pem").string(); }

  server_identity issue(const certificate_wish& wish = {}) const {
    const auto key = make_key();
    const std::unique_ptr<X509, free_openssl> certificate(X509_new());
    X509& issuer = wish.self_signed ? *certificate : *certificate_;
    describe(*certificate, *key, "hub_session test server", wish);
    add_extension(*certificate, issuer, NID_subject_alt_name, wish.alternative_names);
    add_extension(*certificate, issuer, NID_ext_key_usage, wish.usage);
    sign(*certificate, issuer, wish.self_signed ? *key : *key_);

    const std::string name = "server-" + std::to_string(++issued_);
    server_identity out{(folder_ / (name + ".pem")).string(), (folder_ / (name + ".key")).string()};
    write_certificate(out.certificate_file, *certificate);
    const auto write = [&](std::FILE* to) {
      const auto* password = reinterpret_cast<const unsigned char*>(wish.key_password.data());
      return PEM_write_PrivateKey(to, key.get(),
                                  wish.key_password.empty() ? nullptr : EVP_aes_128_cbc(), password,
                                  static_cast<int>(wish.key_password.size()), nullptr, nullptr);
    };
    write_file(out.key_file, write);
    return out;
  }

 private:
  struct free_openssl {
    void operator()(X509* what) const { X509_free(what); }
    void operator()(EVP_PKEY* what) const { EVP_PKEY_free(what); }
    void operator()(X509_EXTENSION* what) const { X509_EXTENSION_free(what); }
  };

  static void require(bool done, const char* what) {
    if (!done) throw std::runtime_error(std::string("OpenSSL cannot make a ") + what);
  }

  static std::unique_ptr<EVP_PKEY, free_openssl> make_key() {
    std::unique_ptr<EVP_PKEY, free_openssl> key(EVP_EC_gen("P-256"));
    require(key != nullptr, "key");
    return key;
  }

  // Everything but extensions and signature.
  static void describe(X509& what, EVP_PKEY& key, const std::string& name,
                       const certificate_wish& wish) {
    static std::atomic<long> serial{0};
    X509_set_version(&what, X509_VERSION_3);
    ASN1_INTEGER_set(X509_get_serialNumber(&what), ++serial);
    X509_gmtime_adj(X509_getm_notBefore(&what), wish.valid_from_seconds);
    X509_gmtime_adj(X509_getm_notAfter(&what), wish.valid_until_seconds);
    X509_NAME_add_entry_by_txt(X509_get_subject_name(&what), "CN", MBSTRING_ASC,
                               reinterpret_cast<const unsigned char*>(name.c_str()), -1, -1, 0);
    require(X509_set_pubkey(&what, &key) == 1, "certificate");
  }

  static void add_extension(X509& to, X509& issuer, int kind, const std::string& value) {
    X509V3_CTX context{};
    X509V3_set_ctx(&context, &issuer, &to, nullptr, nullptr, 0);
    const std::unique_ptr<X509_EXTENSION, free_openssl> extension(
        X509V3_EXT_nconf_nid(nullptr, &context, kind, value.c_str()));
    require(extension && X509_add_ext(&to, extension.get(), -1) == 1, "certificate extension");
  }

  static void sign(X509& what, X509& issuer, EVP_PKEY& key) {
    X509_set_issuer_name(&what, X509_get_subject_name(&issuer));
    require(X509_sign(&what, &key, EVP_sha256()) > 0, "signature");
  }

  template <class Write>
  static void write_file(const std::string& name, Write write) {
    std::FILE* to = std::fopen(name.c_str(), "w");
    const bool written = to && write(to) == 1;
    require(to && std::fclose(to) == 0 && written, "PEM file");
  }

  static void write_certificate(const std::string& name, X509& what) {
    write_file(name, [&](std::FILE* to) { return PEM_write_X509(to, &what); });
  }

  scratch_folder folder_;
  std::unique_ptr<EVP_PKEY, free_openssl> key_;
  std::unique_ptr<X509, free_openssl> certificate_;
  mutable int issued_ = 0;
};
#endif

}  // namespace hub_test
