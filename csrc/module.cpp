// compress_rec._C: facts of the build and the instruction tier. The kernels themselves are reached through torch's dispatcher.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include "isa.h"
#include "kernels.h"

namespace py = pybind11;

#if defined(__clang__)
#define COMPRESS_REC_COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPRESS_REC_COMPILER "gcc " __VERSION__
#else
#define COMPRESS_REC_COMPILER "unknown compiler"
#endif

PYBIND11_MODULE(_C, module) {
    module.doc() = "Facts of the build, and the instruction tier that the compiled kernels run at.";
    module.def("compiler", [] { return std::string(COMPRESS_REC_COMPILER); }, "The compiler that built this file.");
    module.def("best_tier", [] { return std::string(compress_rec::name_of(compress_rec::best_tier())); }, "The best tier this CPU can run.");
    module.def("tiers", &compress_rec::tier_names, "Every tier this CPU can run, the reference first.");
    module.def("tier", [] { return std::string(compress_rec::name_of(compress_rec::current_tier())); }, "The tier in force.");
    module.def("use", &compress_rec::use, py::arg("tier"), "Put a tier in force.");
    module.def("kernels", &compress_rec::kernel_names, "The ops that have a compiled kernel for the CPU.");
}
