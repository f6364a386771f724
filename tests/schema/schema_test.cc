// The schemas of the API and of what is on disk against those of each released version, kept in tests/fixtures: what a
// released program writes or sends must mean the same to today's, so numbers, names and types of then stay for ever.
#include <google/protobuf/compiler/importer.h>
#include <google/protobuf/io/zero_copy_stream_impl_lite.h>

#include <catch2/catch.hpp>
#include <filesystem>
#include <map>
#include <string>
#include <vector>

#include "common/text.h"

namespace sluice {
namespace {

namespace pb = google::protobuf;
namespace fs = std::filesystem;
using Problems = std::vector<std::string>;

/// Parsed .proto files.
class Schemas : private pb::compiler::MultiFileErrorCollector {
 public:
  explicit Schemas(pb::compiler::SourceTree& tree, const std::vector<std::string>& names) : importer_(&tree, this) {
    for (const std::string& name : names) files_.push_back(importer_.Import(name));
  }
  const pb::DescriptorPool& pool() const { return *importer_.pool(); }
  const std::vector<const pb::FileDescriptor*>& files() const { return files_; }

 private:
  void AddError(const std::string& file, int line, int, const std::string& message) override {
    FAIL(file << ":" << line + 1 << ": " << message);
  }
  pb::compiler::Importer importer_;
  std::vector<const pb::FileDescriptor*> files_;
};

class Folder {
 public:
  explicit Folder(const fs::path& root) {
    tree_.MapPath("", root.string());
    for (const auto& entry : fs::recursive_directory_iterator(root)) {
      if (entry.path().extension() == ".proto") names_.push_back(fs::relative(entry.path(), root).string());
    }
    schemas_ = std::make_unique<Schemas>(tree_, names_);
  }
  const Schemas& operator*() const { return *schemas_; }

 private:
  pb::compiler::DiskSourceTree tree_;
  std::vector<std::string> names_;
  std::unique_ptr<Schemas> schemas_;
};

/// One file in memory.
class Text : private pb::compiler::SourceTree {
 public:
  explicit Text(std::string_view body)
      : text_(Cat("syntax = \"proto3\"; package p; ", body)), schemas_(*this, {"p.proto"}) {}
  const Schemas& operator*() const { return schemas_; }

 private:
  pb::io::ZeroCopyInputStream* Open(const std::string&) override {
    return new pb::io::ArrayInputStream(text_.data(), static_cast<int>(text_.size()));
  }
  const std::string text_;
  const Schemas schemas_;
};

std::string TypeOf(const pb::FieldDescriptor& field) {
  std::string type = field.type_name();
  if (field.message_type() != nullptr) type += Cat(" ", field.message_type()->full_name());
  if (field.enum_type() != nullptr) type += Cat(" ", field.enum_type()->full_name());
  if (field.is_repeated()) type = Cat("repeated ", type, field.is_packed() ? " packed" : "");
  // Fields of one oneof clear each other; `optional` says whether a default was sent.
  if (field.has_optional_keyword()) type = Cat("optional ", type);
  if (const pb::OneofDescriptor* oneof = field.real_containing_oneof()) type += Cat(" of oneof ", oneof->name());
  return type;
}

void CompareEnum(const pb::EnumDescriptor& then, const pb::EnumDescriptor* now, Problems* problems) {
  if (now == nullptr) return problems->push_back(Cat(then.full_name(), " is gone"));
  for (int i = 0; i < then.value_count(); ++i) {
    const pb::EnumValueDescriptor& value = *then.value(i);
    const pb::EnumValueDescriptor* same = now->FindValueByNumber(value.number());
    if (same == nullptr) {
      if (!now->IsReservedNumber(value.number()))
        problems->push_back(Cat(value.full_name(), " is gone and its number is free"));
    } else if (same->name() != value.name()) {
      problems->push_back(Cat(value.full_name(), " is called ", same->name()));
    }
  }
}

void CompareMessage(const pb::Descriptor& then, const pb::DescriptorPool& now_pool, Problems* problems) {
  const pb::Descriptor* now = now_pool.FindMessageTypeByName(then.full_name());
  if (now == nullptr) return problems->push_back(Cat(then.full_name(), " is gone"));
  for (int i = 0; i < then.field_count(); ++i) {
    const pb::FieldDescriptor& field = *then.field(i);
    const pb::FieldDescriptor* same = now->FindFieldByNumber(field.number());
    if (same == nullptr) {
      if (!now->IsReservedNumber(field.number()))
        problems->push_back(Cat(field.full_name(), " is gone and its number is free"));
      continue;
    }
    if (same->name() != field.name()) problems->push_back(Cat(field.full_name(), " is called ", same->name()));
    if (TypeOf(*same) != TypeOf(field)) {
      problems->push_back(Cat(field.full_name(), " was ", TypeOf(field), " and is ", TypeOf(*same)));
    }
  }
  for (int i = 0; i < then.reserved_range_count(); ++i) {
    for (int number = then.reserved_range(i)->start; number < then.reserved_range(i)->end; ++number) {
      if (!now->IsReservedNumber(number))
        problems->push_back(Cat(then.full_name(), " took the reserved number ", number));
    }
  }
  for (int i = 0; i < then.nested_type_count(); ++i) CompareMessage(*then.nested_type(i), now_pool, problems);
  for (int i = 0; i < then.enum_type_count(); ++i) {
    CompareEnum(*then.enum_type(i), now_pool.FindEnumTypeByName(then.enum_type(i)->full_name()), problems);
  }
}

void CompareService(const pb::ServiceDescriptor& then, const pb::ServiceDescriptor* now, Problems* problems) {
  if (now == nullptr) return problems->push_back(Cat(then.full_name(), " is gone"));
  for (int i = 0; i < then.method_count(); ++i) {
    const pb::MethodDescriptor& method = *then.method(i);
    const pb::MethodDescriptor* same = now->FindMethodByName(method.name());
    if (same == nullptr) {
      problems->push_back(Cat(method.full_name(), " is gone"));
    } else if (same->input_type()->full_name() != method.input_type()->full_name() ||
               same->output_type()->full_name() != method.output_type()->full_name() ||
               same->client_streaming() != method.client_streaming() ||
               same->server_streaming() != method.server_streaming()) {
      problems->push_back(Cat(method.full_name(), " takes or gives something else"));
    }
  }
}

/// What of `then` a program of today would not understand.
Problems Breaks(const Schemas& then, const Schemas& now) {
  Problems problems;
  for (const pb::FileDescriptor* file : then.files()) {
    for (int i = 0; i < file->message_type_count(); ++i) CompareMessage(*file->message_type(i), now.pool(), &problems);
    for (int i = 0; i < file->enum_type_count(); ++i) {
      CompareEnum(*file->enum_type(i), now.pool().FindEnumTypeByName(file->enum_type(i)->full_name()), &problems);
    }
    for (int i = 0; i < file->service_count(); ++i) {
      CompareService(*file->service(i), now.pool().FindServiceByName(file->service(i)->full_name()), &problems);
    }
  }
  return problems;
}

}  // namespace

TEST_CASE("what every released version knew of the API and of the files on disk is still what it was") {
  const Folder now(fs::path(SLUICE_SOURCE_DIR) / "proto");
  int versions = 0;
  for (const auto& kept : fs::directory_iterator(fs::path(SLUICE_SOURCE_DIR) / "tests" / "fixtures")) {
    if (!fs::exists(kept.path() / "proto")) continue;
    ++versions;
    INFO(kept.path().filename());
    const Folder then(kept.path() / "proto");
    CHECK((*then).files().size() >= 6);
    CHECK(Breaks(*then, *now) == Problems{});
  }
  CHECK(versions >= 1);
}

TEST_CASE("every way to break a schema is found, and what only adds is none") {
  const std::string original =
      "message M { int32 a = 1; string b = 2; repeated int64 c = 3; N n = 4; reserved 9; message In { bool x = 1; } } "
      "message N { oneof o { int32 p = 1; int32 q = 2; } E e = 3; } enum E { ZERO = 0; ONE = 1; } "
      "service S { rpc Get(M) returns (N); }";
  const Text then(original);
  struct Change {
    const char* from;
    const char* to;
    const char* problem;  // empty: none
  };
  const Change changes[] = {
      {"int32 a = 1;", "int32 a = 1; int32 d = 5;", ""},
      {"int32 a = 1;", "reserved 1;", ""},
      {"ONE = 1;", "ONE = 1; TWO = 2;", ""},
      {"rpc Get", "rpc Put(M) returns (N); rpc Get", ""},
      {"int32 a = 1;", "int32 a = 7;", "p.M.a is gone and its number is free"},
      {"int32 a = 1;", "", "p.M.a is gone and its number is free"},
      {"int32 a = 1;", "int32 d = 1;", "p.M.a is called d"},
      {"int32 a = 1;", "int64 a = 1;", "p.M.a was int32 and is int64"},
      {"int32 a = 1;", "optional int32 a = 1;", "p.M.a was int32 and is optional int32"},
      {"repeated int64 c = 3;", "int64 c = 3;", "p.M.c was repeated int64 packed and is int64"},
      {"repeated int64 c = 3;", "repeated int64 c = 3 [packed = false];",
       "p.M.c was repeated int64 packed and is repeated int64"},
      {"N n = 4;", "M n = 4;", "p.M.n was message p.N and is message p.M"},
      {"reserved 9;", "bytes z = 9;", "p.M took the reserved number 9"},
      {"bool x = 1;", "", "p.M.In.x is gone and its number is free"},
      {"oneof o { int32 p = 1; int32 q = 2; }", "int32 p = 1; oneof o { int32 q = 2; }",
       "p.N.p was int32 of oneof o and is int32"},
      {"ONE = 1;", "EINS = 1;", "p.ONE is called EINS"},
      {"ONE = 1;", "", "p.ONE is gone and its number is free"},
      {"rpc Get(M) returns (N);", "", "p.S.Get is gone"},
      {"rpc Get(M) returns (N);", "rpc Get(M) returns (stream N);", "p.S.Get takes or gives something else"},
  };
  for (const Change& change : changes) {
    std::string text = original;
    INFO(change.from << " -> " << change.to);
    const size_t at = text.find(change.from);
    REQUIRE(at != std::string::npos);
    const Text now(text.replace(at, std::string(change.from).size(), change.to));
    CHECK(Breaks(*then, *now) == (*change.problem == '\0' ? Problems{} : Problems{change.problem}));
  }
}

}  // namespace sluice
