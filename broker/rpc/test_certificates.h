// Certificates made by openssl for a test, in a folder that goes with the test. Included by tests only.
#pragma once

#include <stdlib.h>

#include <catch2/catch.hpp>
#include <fstream>
#include <string>

#include "broker/tls_files.h"

namespace sluice::broker::rpc {

class TestCertificates {
 public:
  TestCertificates() {
    char path[] = "/tmp/sluice-tls-test-XXXXXX";
    dir_ = mkdtemp(path);
    MakeAuthority("ca");
  }
  ~TestCertificates() { CHECK(system(("rm -rf " + dir_).c_str()) == 0); }

  std::string Path(const std::string& name) const { return dir_ + "/" + name; }
  void MakeAuthority(const std::string& name) const {
    Run("req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 -subj /CN=" + name + " -keyout " +
        Path(name + ".key") + " -out " + Path(name + ".pem"));
  }
  /// A certificate with these alternative names ("URI:sluice:///node/1", "IP:127.0.0.1"), from `authority`.
  TlsFiles Make(const std::string& name, const std::string& names, const std::string& authority = "ca") const {
    std::ofstream(Path(name + ".ext")) << "subjectAltName=" << names << "\n";
    Run("req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj /CN=" + name + " -keyout " + Path(name + ".key") +
        " -out " + Path(name + ".csr"));
    Run("x509 -req -in " + Path(name + ".csr") + " -CA " + Path(authority + ".pem") + " -CAkey " +
        Path(authority + ".key") + " -CAcreateserial -days 2 -extfile " + Path(name + ".ext") + " -out " +
        Path(name + ".pem"));
    return {.cert = Path(name + ".pem"), .key = Path(name + ".key"), .ca = Path("ca.pem")};
  }
  /// Puts the certificate and key `from` in the place of `to`, each by a rename, as rotations do.
  void Replace(const TlsFiles& to, const TlsFiles& from) const {
    const std::string replace = "cp " + from.key + " " + to.key + ".new && cp " + from.cert + " " + to.cert +
                                ".new && mv " + to.key + ".new " + to.key + " && mv " + to.cert + ".new " + to.cert;
    REQUIRE(system(replace.c_str()) == 0);
  }

 private:
  static void Run(const std::string& arguments) {
    const std::string command = "openssl " + arguments + " 2>/dev/null";
    INFO(command);
    REQUIRE(system(command.c_str()) == 0);
  }
  std::string dir_;
};

}  // namespace sluice::broker::rpc
