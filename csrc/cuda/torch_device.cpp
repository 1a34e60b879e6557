// The real thing behind torch_device.h: torch's device guard and current stream, through its stable ABI.
#define USE_CUDA  // of torch's shim: that it declares what a CUDA build of torch has
#include "torch_device.h"

#include <cuda_runtime_api.h>
#include <torch/csrc/inductor/aoti_torch/c/shim.h>

namespace compress_rec::cuda {

Running::Running(int32_t device_index) {
    DeviceGuardHandle guard = nullptr;
    TORCH_ERROR_CODE_CHECK(aoti_torch_create_device_guard(device_index, &guard));
    guard_ = guard;
    TORCH_ERROR_CODE_CHECK(aoti_torch_get_current_cuda_stream(device_index, &stream_));
    if (cudaDeviceGetAttribute(&multiprocessors_, cudaDevAttrMultiProcessorCount, device_index) != cudaSuccess) multiprocessors_ = 1;
}

Running::~Running() {
    aoti_torch_delete_device_guard(static_cast<DeviceGuardHandle>(guard_));
}

}  // namespace compress_rec::cuda
