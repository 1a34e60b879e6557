// Between torch and the CUDA kernels: on which device and stream a call runs, and what every op refuses.
#pragma once

#include <torch/csrc/stable/library.h>
#include <torch/csrc/stable/ops.h>
#include <torch/csrc/stable/tensor.h>

#include <initializer_list>
#include <memory>
#include <optional>
#include <stdexcept>
#include <string>
#include <utility>

#include "../check.h"

namespace compress_rec::cuda {

// Makes a device the current one for as long as it lives, and knows the stream that torch puts work on there. Nothing waits for it.
class Running {
  public:
    explicit Running(int32_t device_index);
    ~Running();
    Running(const Running&) = delete;
    Running& operator=(const Running&) = delete;

    void* stream() const { return stream_; }
    int multiprocessors() const { return multiprocessors_; }

  private:
    void* guard_ = nullptr;
    void* stream_ = nullptr;
    int multiprocessors_ = 1;
};

using Named = std::pair<const char*, const torch::stable::Tensor*>;

// Refuses tensors that are not where the first one is; null ones are passed over.
inline void check_devices(const char* op, std::initializer_list<Named> tensors) {
    const torch::stable::Tensor& first = *tensors.begin()->second;
    const auto place = [](const torch::stable::Tensor& tensor) {
        if (tensor.is_cuda()) return "cuda:" + std::to_string(tensor.get_device_index());
        return std::string(tensor.is_cpu() ? "cpu" : "another device");
    };
    for (const Named& named : tensors) {
        if (named.second == nullptr || place(*named.second) == place(first)) continue;
        refuse(op, named.first, std::string("on the device of ") + tensors.begin()->first + " (" + place(first) + ")",
               "one on " + place(*named.second), "move it with .to()");
    }
}

inline const torch::stable::Tensor* pointer(const std::optional<torch::stable::Tensor>& tensor) {
    return tensor.has_value() ? &*tensor : nullptr;
}

inline torch::stable::Tensor scratch_like(const torch::stable::Tensor& like, size_t bytes) {
    return torch::stable::new_empty(like, {static_cast<int64_t>(bytes)}, torch::headeronly::ScalarType::Byte);
}

// Throws what a launcher says; null says that all is on its way.
inline void check_launch(const char* op, const char* why) {
    if (why != nullptr) throw std::runtime_error(std::string(op) + ": the CUDA kernel was not launched: " + why);
}

}  // namespace compress_rec::cuda
