// What module.cpp takes from encoder_module.cpp.
#pragma once

#include <pybind11/pybind11.h>

namespace compress_rec {

void bind_encoder(pybind11::module_& module);

}  // namespace compress_rec
