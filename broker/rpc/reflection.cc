// grpc.reflection.v1 and v1alpha. Our own rather than gRPC's plugin: that one is a synchronous service, whose threads
// would poll beside the completion queues.
#include <google/protobuf/descriptor.h>
#include <google/protobuf/descriptor.pb.h>

#include <set>
#include <utility>

#include "broker/rpc/handlers.h"
#include "grpc/health/v1/health.pb.h"
#include "grpc/reflection/v1alpha/reflection.pb.h"
#include "sluice/v1/cluster.pb.h"
#include "sluice/v1/topics.pb.h"

namespace sluice::broker::rpc {
namespace {

namespace reflection = ::grpc::reflection::v1alpha;
using google::protobuf::DescriptorPool;
using google::protobuf::FileDescriptor;

// A file and all that it imports, each once, so that the client need not ask again.
void AddFiles(const FileDescriptor* file, std::set<const FileDescriptor*>* seen,
              reflection::FileDescriptorResponse* out) {
  if (!seen->insert(file).second) return;
  google::protobuf::FileDescriptorProto proto;
  file->CopyTo(&proto);
  out->add_file_descriptor_proto(proto.SerializeAsString());
  for (int i = 0; i < file->dependency_count(); ++i) AddFiles(file->dependency(i), seen, out);
}

void Fail(grpc::StatusCode code, const std::string& message, reflection::ServerReflectionResponse* response) {
  response->mutable_error_response()->set_error_code(code);
  response->mutable_error_response()->set_error_message(message);
}

void AnswerFile(const FileDescriptor* file, const std::string& asked, reflection::ServerReflectionResponse* response) {
  if (file == nullptr) return Fail(grpc::StatusCode::NOT_FOUND, "not known: " + asked, response);
  std::set<const FileDescriptor*> seen;
  AddFiles(file, &seen, response->mutable_file_descriptor_response());
}

reflection::ServerReflectionResponse Answer(const reflection::ServerReflectionRequest& request) {
  const DescriptorPool& pool = *DescriptorPool::generated_pool();
  reflection::ServerReflectionResponse response;
  response.set_valid_host(request.host());
  *response.mutable_original_request() = request;
  switch (request.message_request_case()) {
    case reflection::ServerReflectionRequest::kListServices:
      for (const std::string& name : ServiceNames()) {
        response.mutable_list_services_response()->add_service()->set_name(name);
      }
      break;
    case reflection::ServerReflectionRequest::kFileByFilename:
      AnswerFile(pool.FindFileByName(request.file_by_filename()), request.file_by_filename(), &response);
      break;
    case reflection::ServerReflectionRequest::kFileContainingSymbol:
      AnswerFile(pool.FindFileContainingSymbol(request.file_containing_symbol()), request.file_containing_symbol(),
                 &response);
      break;
    case reflection::ServerReflectionRequest::kAllExtensionNumbersOfType:
      if (pool.FindMessageTypeByName(request.all_extension_numbers_of_type()) == nullptr) {
        Fail(grpc::StatusCode::NOT_FOUND, "not known: " + request.all_extension_numbers_of_type(), &response);
      } else {  // the API has no extensions
        response.mutable_all_extension_numbers_response()->set_base_type_name(request.all_extension_numbers_of_type());
      }
      break;
    case reflection::ServerReflectionRequest::kFileContainingExtension:
      Fail(grpc::StatusCode::NOT_FOUND, "the API has no extensions", &response);
      break;
    case reflection::ServerReflectionRequest::MESSAGE_REQUEST_NOT_SET:
      Fail(grpc::StatusCode::INVALID_ARGUMENT, "the request asks for nothing", &response);
      break;
  }
  return response;
}

class ReflectionHandler final : public Handler {
 public:
  explicit ReflectionHandler(std::shared_ptr<Call> call) : call_(std::move(call)) {}
  void OnStart() override { call_->ReadNext(); }
  void OnReadsDone() override { call_->Finish(grpc::Status::OK); }
  void OnMessage(grpc::ByteBuffer message) override {
    reflection::ServerReflectionRequest request;
    if (!ParseSmall(&message, &request)) {
      return call_->Fail(MakeError(Reason::kInvalidArgument, "the request is not a ServerReflectionRequest"));
    }
    call_->Write(Serialize(Answer(request)));
  }
  void OnWritten() override { call_->ReadNext(); }  // one answer at a time
  void OnDrain() override { call_->Fail(MakeError(Reason::kNotAvailable, "the node is shutting down", true)); }
  void OnGone() override {}

 private:
  const std::shared_ptr<Call> call_;
};

}  // namespace

std::vector<std::string> ServiceNames() {
  std::vector<std::string> names;
  // Asking a message of each file for its descriptor also makes sure that the linker keeps the file.
  for (const google::protobuf::Descriptor* message :
       {v1::ProduceRequest::descriptor(), v1::Topic::descriptor(), v1::Node::descriptor(),
        ::grpc::health::v1::HealthCheckRequest::descriptor(), reflection::ServerReflectionRequest::descriptor()}) {
    for (int i = 0; i < message->file()->service_count(); ++i) {
      names.push_back(message->file()->service(i)->full_name());
    }
  }
  return names;
}

std::shared_ptr<Handler> MakeReflectionHandler(const std::string& method, std::shared_ptr<Call> call) {
  if (method != "/grpc.reflection.v1alpha.ServerReflection/ServerReflectionInfo" &&
      method != "/grpc.reflection.v1.ServerReflection/ServerReflectionInfo") {
    return nullptr;
  }
  return std::make_shared<ReflectionHandler>(std::move(call));
}

}  // namespace sluice::broker::rpc
