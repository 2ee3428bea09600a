#include "jobs/training/training_state.h"

#include "kernels/tensor/device.h"

namespace tutti::training {

TrainingState::TrainingState(const models::Decoder& decoder, const optimizers::Optimizer& optimizer,
                             kernels::Device* device)
    : weights_(static_cast<kernels::Index>(decoder.layout().elements())), device_(device) {
  const auto words =
      static_cast<kernels::Index>(models::StateLayout(decoder.layout(), optimizer.packed).words);
  for (std::size_t i = 0; i < optimizer.states.size(); ++i) {
    optimizer_.emplace_back(words);
    optimizer_spans_.push_back(optimizer_.back().span());
  }
  if (device == nullptr) return;
  device_weights_ = kernels::FloatBuffer(weights_.size(), device);
  for (std::size_t i = 0; i < optimizer.states.size(); ++i) {
    device_optimizer_.emplace_back(words, device);
    device_optimizer_spans_.push_back(device_optimizer_.back().span());
  }
}

Result<> TrainingState::bring_to_host() {
  if (!host_is_old_) return {};
  const std::size_t bytes = weights_.span().size_bytes();
  auto down = device_->download(weights_.data(), device_weights_.data(), bytes);
  for (std::size_t i = 0; down && i < optimizer_.size(); ++i) {
    down = device_->download(optimizer_[i].data(), device_optimizer_[i].data(),
                             optimizer_spans_[i].size_bytes());
  }
  host_is_old_ = !down.ok();
  return down;
}

Result<> TrainingState::bring_to_device() {
  if (!device_is_old_) return {};
  const std::size_t bytes = weights_.span().size_bytes();
  auto up = device_->upload(device_weights_.data(), weights_.data(), bytes);
  for (std::size_t i = 0; up && i < optimizer_.size(); ++i) {
    up = device_->upload(device_optimizer_[i].data(), optimizer_[i].data(),
                         optimizer_spans_[i].size_bytes());
  }
  device_is_old_ = !up.ok();
  return up;
}

}  // namespace tutti::training
