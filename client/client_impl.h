// How a Client makes its parts. Internal to the client.
#pragma once

#include <memory>

#include "client/client.h"
#include "client/core.h"

namespace sluice::client {

std::unique_ptr<Admin> MakeAdmin(std::shared_ptr<Core> core);
std::unique_ptr<Producer> MakeProducer(std::shared_ptr<Core> core, ProducerOptions options);
std::unique_ptr<Appender> MakeAppender(std::shared_ptr<Core> core);
std::unique_ptr<Consumer> MakeConsumer(std::shared_ptr<Core> core, ConsumerOptions options);

}  // namespace sluice::client
