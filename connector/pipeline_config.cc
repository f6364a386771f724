#include "connector/pipeline_config.h"

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <map>
#include <set>
#include <sstream>
#include <tuple>

#include "common/config.h"
#include "common/status_macros.h"
#include "common/text.h"
#include "common/topic_setting.h"
#include "common/units.h"
#include "connector/http/url.h"
#include "connector/sink/path_template.h"
#include "connector/sink/row.h"
#include "connector/source/json_text.h"

namespace sluice::connector {
namespace {

constexpr size_t kTopicNameMax = 245;  // with ".dlq" behind it the broker's 249
constexpr std::string_view kNameRule = "a name is 1 to 100 of the characters A-Z a-z 0-9 . _ -";
constexpr absl::Duration kTimeoutMax = absl::Hours(1);

/// One pipeline on its way from the file's nodes to the structs. Every error is noted at its node; Finish tells them
/// all.
class PipelineReader {
 public:
  PipelineReader(ConfigFile& file, const SecretSource& secrets) : file_(file), secrets_(secrets) {}

  absl::StatusOr<PipelineConfig> Read(std::string_view name, PipelineConfig* read) {
    PipelineConfig pipeline;
    pipeline.file = std::string(name);
    const ConfigNode root = file_.root();
    root.Require("pipeline");
    pipeline.name = root.String("pipeline", "");
    pipeline.at = Where(root.Child("pipeline"));
    if (!pipeline.name.empty() && !IsName(pipeline.name)) {
      root.AddError("pipeline", kNameRule);
    }
    root.Require("source");
    if (root.Has("source")) {
      const auto kind = root.Child("source").OneOf({"http"});
      if (kind) pipeline.source = Http(kind->second);
    }
    root.Require("topic");
    if (root.Has("topic")) pipeline.topic = Topic(root.Child("topic"));
    const std::vector<ConfigNode> sinks = root.List("sinks");
    for (size_t i = 0; i < sinks.size(); ++i) {
      if (const auto kind = sinks[i].OneOf({"raw", "parquet"})) {
        std::string sink_name = kind->second.String("name", Cat(kind->first, "-", i));
        if (!IsName(sink_name)) kind->second.AddError("name", kNameRule);
        pipeline.sinks.push_back({.name = std::move(sink_name), .config = Sink(kind->first, kind->second)});
      }
    }
    std::set<std::string> sink_names;
    for (const NamedSink& sink : pipeline.sinks) {
      if (!sink_names.insert(sink.name).second)
        root.AddError("sinks", Cat("a second sink of the name '", sink.name, "'"));
    }
    const absl::Status sound = file_.Finish();
    if (sound.ok()) return pipeline;
    if (read != nullptr) *read = std::move(pipeline);
    return sound;
  }

 private:
  static bool IsReadableFile(const std::string& path) {
    std::error_code error;
    return std::filesystem::is_regular_file(path, error) && std::ifstream(path).good();
  }
  static bool IsName(std::string_view text) {
    return !text.empty() && text.size() <= 100 && std::all_of(text.begin(), text.end(), [](unsigned char c) {
      return std::isalnum(c) || c == '.' || c == '_' || c == '-';
    });
  }

  Secret Expand(const ConfigNode& at, std::string_view key, std::string_view text, const SecretSource& source) const {
    absl::StatusOr<Secret> secret = ExpandSecrets(text, source);
    if (secret.ok()) return *std::move(secret);
    at.AddError(key, Message(secret.status()));
    return {};
  }
  /// Also remembers what the references gave, so that no message will ever show it.
  Secret ExpandSecret(const ConfigNode& at, std::string_view key, std::string_view text) const {
    return Expand(at, key, text,
                  {.environment =
                       [this](const std::string& name) {
                         std::optional<std::string> value = secrets_.environment(name);
                         if (value) found_.emplace_back(*value);
                         return value;
                       },
                   .file =
                       [this](const std::string& path) {
                         absl::StatusOr<std::string> content = secrets_.file(path);
                         if (content.ok()) Remember(*content);
                         return content;
                       }});
  }
  void Remember(std::string text) const {
    while (!text.empty() && (text.back() == '\n' || text.back() == '\r')) text.pop_back();
    found_.emplace_back(std::move(text));
  }
  Secret SecretAt(const ConfigNode& node, std::string_view key) const {
    return ExpandSecret(node, key, node.String(key, ""));
  }
  /// A secret though it be written into the file itself.
  Secret Credential(const ConfigNode& node, std::string_view key) const {
    Secret secret = SecretAt(node, key);
    found_.push_back(secret);
    return secret;
  }
  /// References give plain text here: for addresses that differ by machine, not for secrets.
  std::string Plain(const ConfigNode& node, std::string_view key) const {
    const std::string text = node.String(key, "");
    if (const std::string wrong = OtherReference(text); !wrong.empty()) {
      node.AddError(key, Cat("\"", wrong, "\" is no reference; there are ${env:NAME} and ${file:PATH}"));
      return {};
    }
    return Expand(node, key, text, secrets_).Reveal();
  }
  /// The first "${…}" that is neither a reference nor written with a second '$'; empty where there is none.
  static std::string OtherReference(std::string_view text) {
    for (size_t at = text.find("${"); at != std::string_view::npos; at = text.find("${", at + 1)) {
      const std::string_view rest = text.substr(at);
      if ((at > 0 && text[at - 1] == '$') || rest.starts_with("${env:") || rest.starts_with("${file:")) continue;
      const size_t end = rest.find('}');
      return std::string(rest.substr(0, end == std::string_view::npos ? end : end + 1));
    }
    return {};
  }
  static std::string Where(const ConfigNode& node) { return Cat(node.Location(), ": ", node.path()); }

  std::string Pointer(const ConfigNode& node, std::string_view key) const {
    std::string pointer = node.String(key, "");
    if (!ParseJsonPointer(pointer).ok()) node.AddError(key, "a JSON pointer is empty or begins with '/' (RFC 6901)");
    return pointer;
  }
  std::string RequiredPointer(const ConfigNode& node, std::string_view key) const {
    node.Require(key);
    return Pointer(node, key);
  }

  HttpSourceConfig Http(const ConfigNode& node) const {
    using Method = HttpSourceConfig::Method;
    HttpSourceConfig http;
    http.at = Where(node);
    node.Require("url");
    http.url = Plain(node, "url");
    if (!http.url.empty()) {
      if (const auto url = http::ParseUrl(http.url); !url.ok()) node.AddError("url", Message(url.status()));
    }
    http.method = node.Enum("method", Method::kGet, {{"GET", Method::kGet}, {"POST", Method::kPost}});
    for (const auto& [name, value] : node.StringMap("headers")) {
      http.headers.emplace_back(name, HeaderValue(node, name, ExpandSecret(node, "headers", value)));
    }
    for (const auto& [name, value] : node.StringMap("params")) {
      http.params.emplace_back(name, ExpandSecret(node, "params", value));
    }
    if (node.Has("auth")) Auth(node.Child("auth"), &http);
    http.body = SecretAt(node, "body");
    if (node.Has("body") && http.method != Method::kPost) node.AddError("body", "only with `method: POST`");
    node.Require("records");
    http.records = Pointer(node, "records");
    http.records_at = Where(node.Child("records"));
    http.secrets = std::exchange(found_, {});
    if (node.Has("pagination")) http.pagination = PaginationOf(node.Child("pagination"));
    if (node.Has("cursor")) http.incremental = Incremental(node.Child("cursor"));
    http.slices = Slices(node);
    Schedule(node, &http);
    const ConfigRange<absl::Duration> time_range{absl::Milliseconds(1), kTimeoutMax};
    http.connect_timeout = node.Duration("connect_timeout", http.connect_timeout, time_range);
    http.read_timeout = node.Duration("read_timeout", http.read_timeout, time_range);
    http.body_bytes_max = node.Size("page_bytes_max", http.body_bytes_max, {1, int64_t{1} << 30});
    http.redirects_max = static_cast<int>(node.Int("redirects_max", http.redirects_max, {0, 20}));
    const ConfigNode retry = node.Child("retry");
    http.attempts_max = static_cast<int>(retry.Int("attempts", http.attempts_max, {1, 1000}));
    http.backoff_max = retry.Duration("backoff_max", http.backoff_max, time_range);
    const ConfigNode tls = node.Child("tls");
    http.ca_file = tls.String("ca_file", "");
    if (!http.ca_file.empty() && !IsReadableFile(http.ca_file)) {
      tls.AddError("ca_file", Cat("\"", http.ca_file, "\" is no file that can be read"));
    }
    return http;
  }

  /// A line break in a header would let a value add headers of its own.
  Secret HeaderValue(const ConfigNode& node, std::string_view name, Secret value) const {
    const std::string& text = value.Reveal();
    const bool bad = std::any_of(text.begin(), text.end(), [](unsigned char c) { return c < 0x20 || c == 0x7f; });
    if (bad) node.AddError("headers", Cat("the value of '", name, "' has a line break or control character in it"));
    return value;
  }

  void Auth(const ConfigNode& node, HttpSourceConfig* http) const {
    const auto kind = node.OneOf({"bearer", "basic", "header"});
    if (!kind) return;
    if (kind->first == "bearer") {
      Secret token(Cat("Bearer ", Credential(node, "bearer").Reveal()));
      http->headers.emplace_back("Authorization", std::move(token));
    } else if (kind->first == "basic") {
      const ConfigNode basic = kind->second;
      basic.Require("user");
      basic.Require("password");
      const Secret user = SecretAt(basic, "user"), password = Credential(basic, "password");
      http->headers.emplace_back("Authorization",
                                 Secret(Cat("Basic ", Base64(Cat(user.Reveal(), ":", password.Reveal())))));
      found_.emplace_back(Base64(Cat(user.Reveal(), ":", password.Reveal())));
    } else {
      const ConfigNode header = kind->second;
      header.Require("name");
      header.Require("value");
      http->headers.emplace_back(header.String("name", ""), Credential(header, "value"));
    }
    if (!http->headers.empty()) HeaderValue(node, "auth", http->headers.back().second);
  }

  static std::string Base64(std::string_view text) {
    static constexpr char kLetters[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
    std::string out;
    for (size_t i = 0; i < text.size(); i += 3) {
      uint32_t bits = 0;
      for (size_t j = 0; j < 3; ++j) bits = bits << 8 | (i + j < text.size() ? static_cast<uint8_t>(text[i + j]) : 0u);
      for (size_t j = 0; j < 4; ++j) out.push_back(i + j > text.size() ? '=' : kLetters[bits >> (18 - 6 * j) & 63]);
    }
    return out;
  }

  Pagination PaginationOf(const ConfigNode& node) const {
    const auto kind = node.OneOf({"page", "offset", "cursor", "next_url", "link_header"});
    if (!kind) return std::monostate();
    const ConfigNode& part = kind->second;
    if (kind->first == "page") {
      const PagePagination fallback;
      return PagePagination{.param = part.String("param", fallback.param), .start = part.Int("start", fallback.start)};
    }
    if (kind->first == "offset") {
      const OffsetPagination fallback;
      return OffsetPagination{.param = part.String("param", fallback.param),
                              .start = part.Int("start", fallback.start)};
    }
    if (kind->first == "cursor") {
      part.Require("param");
      return CursorPagination{.param = part.String("param", ""), .from = RequiredPointer(part, "from")};
    }
    if (kind->first == "next_url") return NextUrlPagination{.from = Pointer(node, "next_url")};
    if (!node.Bool("link_header", true)) return std::monostate();
    return LinkHeaderPagination{};
  }

  IncrementalConfig Incremental(const ConfigNode& node) const {
    using Format = IncrementalConfig::Format;
    node.Require("param");
    return {.field = RequiredPointer(node, "field"),
            .param = node.String("param", ""),
            .start = node.String("start", ""),
            .format = node.Enum("format", Format::kAsIs,
                                {{"as_is", Format::kAsIs},
                                 {"rfc3339", Format::kRfc3339},
                                 {"epoch_seconds", Format::kEpochSeconds},
                                 {"epoch_millis", Format::kEpochMillis}})};
  }

  std::vector<SliceConfig> Slices(const ConfigNode& node) const {
    std::vector<SliceConfig> slices;
    std::set<std::string> names;
    for (const ConfigNode& item : node.List("slices")) {
      item.Require("name");
      SliceConfig slice{.name = item.String("name", ""), .params = item.StringMap("params")};
      if (!IsName(slice.name)) item.AddError("name", kNameRule);
      if (!names.insert(slice.name).second) item.AddError("name", Cat("a second slice of the name '", slice.name, "'"));
      slices.push_back(std::move(slice));
    }
    if (slices.empty()) slices.push_back({.name = "0", .params = {}});
    return slices;
  }

  void Schedule(const ConfigNode& node, HttpSourceConfig* http) const {
    if (!node.Has("schedule")) return;
    const ConfigNode schedule = node.Child("schedule");
    if (schedule.IsScalar()) {
      if (schedule.Text() != "once") schedule.AddError("`once`, or `{ every: 5m }`");
      return;
    }
    schedule.Require("every");
    http->every = schedule.Duration("every", absl::Minutes(5), {absl::Seconds(1), absl::Hours(24 * 366)});
  }

  TopicConfig Topic(const ConfigNode& node) const {
    TopicConfig topic;
    node.Require("name");
    topic.name = Plain(node, "name");
    const bool legal = !topic.name.empty() && topic.name.size() <= kTopicNameMax && topic.name != "." &&
                       topic.name != ".." && std::all_of(topic.name.begin(), topic.name.end(), [](unsigned char c) {
                         return std::isalnum(c) || c == '.' || c == '_' || c == '-';
                       });
    if (node.Has("name") && !legal)
      node.AddError("name", Cat("a topic's name is 1 to ", kTopicNameMax, " of A-Z a-z 0-9 . _ -"));
    if (topic.name.starts_with("__")) node.AddError("name", "names that begin with '__' are the broker's own");
    if (node.Has("key")) topic.key = Pointer(node, "key");
    using record::Codec;
    topic.codec = node.Enum("codec", topic.codec,
                            {{"none", Codec::kNone},
                             {"gzip", Codec::kGzip},
                             {"snappy", Codec::kSnappy},
                             {"lz4", Codec::kLz4},
                             {"zstd", Codec::kZstd}});
    for (const auto& [key, value] : node.Child("config").Entries()) {
      const std::string text = value.Text();
      if (const std::string wrong = WrongTopicSetting(key, text); value.present() && !wrong.empty())
        value.AddError(wrong);
      topic.config.emplace(key, text);
    }
    return topic;
  }

  SinkConfig Sink(std::string_view kind, const ConfigNode& node) const {
    SinkConfig sink;
    sink.at = Where(node);
    sink.kind = kind == "raw" ? SinkKind::kRaw : SinkKind::kParquet;
    node.Require("to");
    sink.to = Plain(node, "to");
    const bool s3 = sink.to.starts_with("s3://");
    if (!sink.to.empty() && !s3 && !sink.to.starts_with("file://"))
      node.AddError("to", "`file://PATH` or `s3://BUCKET/PREFIX`");
    sink.s3.endpoint = Plain(node, "endpoint");
    if (!sink.s3.endpoint.empty() && !http::ParseUrl(sink.s3.endpoint).ok()) {
      node.AddError("endpoint", Cat("expected http://HOST:PORT or https://HOST, found \"", sink.s3.endpoint, "\""));
    }
    sink.s3.region = node.String("region", sink.s3.region);
    sink.s3.access_key = SecretAt(node, "access_key");
    sink.s3.secret_key = SecretAt(node, "secret_key");
    for (const char* key : {"endpoint", "region", "access_key", "secret_key"}) {
      if (!s3 && !sink.to.empty() && node.Has(key)) node.AddError(key, "only with an s3:// target");
    }
    if (sink.kind == SinkKind::kRaw) {
      sink.codec = node.Enum("codec", SinkCodec::kZstd,
                             {{"none", SinkCodec::kNone}, {"gzip", SinkCodec::kGzip}, {"zstd", SinkCodec::kZstd}});
    } else {
      sink.codec = node.Enum("codec", SinkCodec::kZstd,
                             {{"none", SinkCodec::kNone}, {"snappy", SinkCodec::kSnappy}, {"zstd", SinkCodec::kZstd}});
    }
    sink.codec_level =
        static_cast<int>(node.Int("codec_level", sink.codec == SinkCodec::kGzip ? 6 : sink.codec_level, {1, 19}));
    if (sink.codec == SinkCodec::kGzip && sink.codec_level > 9) node.AddError("codec_level", "gzip has levels 1 to 9");
    Roll(node.Child("roll"), &sink.roll);
    sink.path = node.String("path", "");
    sink.event_time = Pointer(node, "event_time");
    const absl::StatusOr<PathTemplate> path = PathTemplate::Parse(sink.path);
    if (!path.ok()) {
      node.AddError("path", Message(path.status()));
    } else if (path->uses_event_time() && !node.Has("event_time")) {
      node.AddError("path", "uses {event_time:…}, so `event_time` has to say where a record's time stands");
    }
    if (sink.kind == SinkKind::kParquet) Schema(node, &sink);
    return sink;
  }

  static void Roll(const ConfigNode& node, RollConfig* roll) {
    roll->records = node.Int("records", roll->records, {0, int64_t{1} << 40});
    roll->bytes = node.Size("bytes", roll->bytes, {0, int64_t{1} << 50});
    roll->age = node.Duration("age", roll->age);
    if (roll->age == absl::ZeroDuration()) roll->age = absl::InfiniteDuration();
  }

  void Schema(const ConfigNode& node, SinkConfig* sink) const {
    if (!node.Has("schema")) return;
    const ConfigNode schema = node.Child("schema");
    if (schema.IsScalar()) {
      if (schema.Text() != "infer") schema.AddError("`infer`, or a list of { name, from, type }");
      return;
    }
    sink->infer_schema = false;
    for (const ConfigNode& item : node.List("schema")) {
      item.Require("name");
      item.Require("type");
      ColumnConfig column{.name = item.String("name", ""), .from = RequiredPointer(item, "from"), .type = Type(item)};
      sink->columns.push_back(std::move(column));
    }
    if (sink->columns.empty()) schema.AddError("a schema needs a column");
    if (const absl::Status sound = CheckSchema(sink->columns); !sound.ok()) schema.AddError(Message(sound));
  }

  static ColumnType Type(const ConfigNode& item) {
    return item.Enum("type", ColumnType::kString,
                     {{"bool", ColumnType::kBool},
                      {"int32", ColumnType::kInt32},
                      {"int64", ColumnType::kInt64},
                      {"double", ColumnType::kDouble},
                      {"string", ColumnType::kString},
                      {"timestamp", ColumnType::kTimestamp},
                      {"timestamp_ms", ColumnType::kTimestampMs},
                      {"date", ColumnType::kDate},
                      {"json", ColumnType::kJson}});
  }

  ConfigFile& file_;
  const SecretSource& secrets_;
  mutable std::vector<Secret> found_;  // since the section began
};

}  // namespace

absl::StatusOr<PipelineConfig> ParsePipeline(std::string_view file, std::string_view text, const SecretSource& secrets,
                                             PipelineConfig* read) {
  SLUICE_ASSIGN_OR_RETURN(ConfigFile parsed, ConfigFile::Parse(file, text));
  return PipelineReader(parsed, secrets).Read(file, read);
}

absl::StatusOr<PipelineConfig> LoadPipeline(const std::string& path, const SecretSource& secrets,
                                            PipelineConfig* read) {
  std::ifstream stream(path, std::ios::binary);
  std::ostringstream text;
  if (stream) text << stream.rdbuf();
  if (!stream || stream.bad()) return absl::InvalidArgumentError(Cat(path, ": cannot be read"));
  return ParsePipeline(path, text.str(), secrets, read);
}

namespace {

std::string WithoutSlashesAtEnd(std::string text) {
  while (text.ends_with('/')) text.pop_back();
  return text;
}

/// Where a sink writes, in one spelling for each folder.
std::string PlaceOf(const SinkConfig& config) {
  constexpr std::string_view kFile = "file://";
  if (!config.to.starts_with(kFile)) return WithoutSlashesAtEnd(config.to);
  std::error_code error;
  const std::filesystem::path folder(config.to.substr(kFile.size()));
  const std::filesystem::path known =
      std::filesystem::weakly_canonical(std::filesystem::absolute(folder, error), error);
  return Cat(kFile, WithoutSlashesAtEnd((error ? folder.lexically_normal() : known).string()));
}

}  // namespace

absl::Status CheckTogether(const std::vector<PipelineConfig>& pipelines) {
  std::string errors;
  const auto add = [&](std::string error) { errors += Cat(errors.empty() ? "" : "\n", error); };
  std::map<std::string, std::string> names;  // where each stands
  std::map<std::tuple<std::string, SinkKind, std::string, std::string>, std::string> writers;
  for (const PipelineConfig& pipeline : pipelines) {
    const auto [first, fresh] = names.emplace(pipeline.name, pipeline.at);
    if (!fresh && !pipeline.name.empty()) {
      add(Cat(pipeline.at, ": a second pipeline of the name '", pipeline.name, "'; the first is at ", first->second));
    }
    for (const NamedSink& sink : pipeline.sinks) {
      if (pipeline.topic.name.empty() || sink.config.to.empty()) continue;
      // The name of a file begins with the topic's.
      const auto [at, alone] = writers.emplace(
          std::tuple(pipeline.topic.name, sink.config.kind, PlaceOf(sink.config), sink.config.path), sink.config.at);
      if (!alone) add(Cat(sink.config.at, ": writes to the folders of ", at->second));
    }
  }
  return errors.empty() ? absl::OkStatus() : absl::InvalidArgumentError(errors);
}

absl::StatusOr<std::vector<std::string>> PipelineFiles(const std::vector<std::string>& arguments) {
  namespace fs = std::filesystem;
  std::vector<std::string> files;
  for (const std::string& argument : arguments) {
    std::error_code error;
    if (!fs::is_directory(argument, error)) {
      if (!fs::exists(argument, error)) return absl::InvalidArgumentError(Cat(argument, ": no such file or folder"));
      files.push_back(argument);
      continue;
    }
    std::vector<std::string> inside;
    for (auto at = fs::directory_iterator(argument, error); !error && at != fs::directory_iterator();
         at.increment(error)) {
      const std::string extension = at->path().extension();
      if (extension == ".yaml" || extension == ".yml") inside.push_back(at->path().string());
    }
    if (error) return absl::InvalidArgumentError(Cat(argument, ": ", error.message()));
    if (inside.empty()) return absl::InvalidArgumentError(Cat(argument, ": no *.yaml or *.yml in this folder"));
    std::sort(inside.begin(), inside.end());
    files.insert(files.end(), inside.begin(), inside.end());
  }
  return files;
}

}  // namespace sluice::connector
