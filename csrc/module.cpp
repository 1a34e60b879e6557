// compress_rec._C: facts of the build and the instruction tier. The kernels themselves are reached through torch's dispatcher.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>

#include "encoder_module.h"
#include "isa.h"
#include "kernels.h"
#include "limits.h"

namespace py = pybind11;

#if defined(__clang__)
#define COMPRESS_REC_COMPILER "clang " __clang_version__
#elif defined(__GNUC__)
#define COMPRESS_REC_COMPILER "gcc " __VERSION__
#else
#define COMPRESS_REC_COMPILER "unknown compiler"
#endif

namespace {

using compress_rec::ArithmeticLimit;

std::map<std::string, int64_t> limit_operations() {
    std::map<std::string, int64_t> operations;
    for (const ArithmeticLimit& limit : compress_rec::arithmetic_limits()) operations[limit.name] = limit.operations;
    return operations;
}

double run_limit(const std::string& name, int64_t steps) {
    for (const ArithmeticLimit& limit : compress_rec::arithmetic_limits()) {
        if (name == limit.name) return limit.run(steps);
    }
    throw std::invalid_argument("this CPU has no limit called '" + name + "'");
}

double read_memory(const py::buffer& memory, int64_t passes) {
    const py::buffer_info told = memory.request();
    if (compress_rec::best_tier() == compress_rec::Tier::reference) throw std::invalid_argument("this CPU cannot run the loop that reads");
    return compress_rec::read_limit_avx2(told.ptr, told.size * told.itemsize, passes);
}

}  // namespace

PYBIND11_MODULE(_C, module) {
    module.doc() = "Facts of the build, and the instruction tier that the compiled kernels run at.";
    module.def("compiler", [] { return std::string(COMPRESS_REC_COMPILER); }, "The compiler that built this file.");
    module.def("best_tier", [] { return std::string(compress_rec::name_of(compress_rec::best_tier())); }, "The best tier this CPU can run.");
    module.def("tiers", &compress_rec::tier_names, "Every tier this CPU can run, the reference first.");
    module.def("tier", [] { return std::string(compress_rec::name_of(compress_rec::current_tier())); }, "The tier in force.");
    module.def("use", &compress_rec::use, py::arg("tier"), "Put a tier in force.");
    module.def("kernels", &compress_rec::kernel_names, "The ops that have a compiled kernel for the CPU.");
    module.def("limits", &limit_operations, "Loops that reach the limits of arithmetic, by name: operations a step. Empty without AVX2.");
    module.def("run_limit", &run_limit, py::arg("name"), py::arg("steps"), "Run one of them.");
    module.def("read_memory", &read_memory, py::arg("memory"), py::arg("passes"), "Read a contiguous buffer so many times.");
    compress_rec::bind_encoder(module);
}
