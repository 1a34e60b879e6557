// compress_rec._C.Encoder: an encoder made of numpy arrays, which compress_rec/runtime.py packs and describes.
#include "encoder_module.h"

#include <pybind11/numpy.h>
#include <pybind11/stl.h>

#include <map>
#include <stdexcept>
#include <string>
#include <utility>
#include <vector>

#include "encoder_run.h"
#include "int8_linear_packed.h"  // kMostInputs
#include "large_memory.h"

namespace py = pybind11;

namespace compress_rec {

namespace {

const std::pair<const char*, Activation> kActivations[] = {{"identity", Activation::identity}, {"gelu", Activation::gelu},
                                                           {"gelu_tanh", Activation::gelu_tanh}, {"relu", Activation::relu},
                                                           {"silu", Activation::silu},         {"tanh", Activation::tanh}};

Activation activation_of(const std::string& name) {
    for (const auto& known : kActivations)
        if (name == known.first) return known.second;
    throw std::invalid_argument("the compiled encoder has no activation called '" + name + "'");
}

class BoundEncoder {
  public:
    explicit BoundEncoder(const py::dict& told) {
        Encoder& to = encoder_;
        to.width = told["width"].cast<int64_t>();
        to.vocabulary = told["vocabulary"].cast<int64_t>();
        to.most_tokens = told["positions"].cast<int64_t>();
        to.epsilon = told["epsilon"].cast<float>();
        to.activation = activation_of(told["activation"].cast<std::string>());
        to.mean_pooling = told["mean_pooling"].cast<bool>();
        const int64_t words = to.vocabulary * to.width;
        to.word_floats = numbers<float>(told, "word_floats", words);
        to.word_codes = numbers<int8_t>(told, "word_codes", words);
        to.word_scales = numbers<float>(told, "word_scales", to.vocabulary);
        to.places = numbers<float>(told, "places", to.most_tokens * to.width);
        to.embedding_norm = !told["norm"].is_none();
        if (to.embedding_norm) to.norm = norm(told["norm"].cast<py::dict>());
        for (const py::handle& layer : told["layers"].cast<py::list>()) to.layers.push_back(layer_of(layer.cast<py::dict>()));
        for (const py::handle& head : told["heads"].cast<py::list>()) {
            std::vector<HeadStage> stages;
            int64_t inputs = to.width;
            for (const py::handle& stage : head.cast<py::list>()) {
                const py::dict one = stage.cast<py::dict>();
                stages.push_back({linear(one["linear"].cast<py::dict>(), inputs, -1), activation_of(one["activation"].cast<std::string>())});
                inputs = stages.back().linear.outputs();
            }
            to.heads.push_back(std::move(stages));
        }
        copied_.clear();
    }

    void run(const py::array& ids, const py::array& offsets, const std::vector<int64_t>& heads, const std::vector<py::array>& outputs) const {
        run_timed(ids, offsets, heads, outputs, nullptr);
    }

    std::vector<std::pair<std::string, int64_t>> profile(const py::array& ids, const py::array& offsets) const {
        int64_t nanoseconds[kEncoderStepCount] = {};
        run_timed(ids, offsets, {}, {}, nanoseconds);
        std::vector<std::pair<std::string, int64_t>> told;
        for (int64_t step = 0; step < kEncoderStepCount; ++step) told.emplace_back(kEncoderSteps[step], nanoseconds[step]);
        return told;
    }

  private:
    void run_timed(const py::array& ids, const py::array& offsets, const std::vector<int64_t>& heads, const std::vector<py::array>& outputs,
                   int64_t* nanoseconds) const {
        const int64_t* texts_at = data<int64_t>(offsets, -1, "offsets");
        const int64_t* tokens_at = data<int64_t>(ids, -1, "ids");
        if (offsets.size() < 1) throw std::invalid_argument("encode_ids: offsets must hold at least a 0, but none came; give where each text begins");
        const int64_t texts = offsets.size() - 1, tokens = ids.size();
        std::vector<EncoderOutput> wanted;
        for (size_t one = 0; one < heads.size(); ++one) {
            const bool plain = heads[one] < 0 || encoder_.heads.at(static_cast<size_t>(heads[one])).empty();
            const int64_t dimensions = plain ? encoder_.width : encoder_.heads[static_cast<size_t>(heads[one])].back().linear.outputs();
            py::array out = outputs.at(one);
            data<float>(out, texts * dimensions, "an output");
            wanted.push_back({heads[one], dimensions, static_cast<float*>(out.mutable_data())});
        }
        py::gil_scoped_release others_may_run;
        run_encoder(encoder_, tokens_at, tokens, texts_at, texts, wanted, nanoseconds);
    }

    template <class T>
    static const T* data(const py::array& array, int64_t size, const char* name) {
        const bool fits = array.dtype().equal(py::dtype::of<T>()) && (array.flags() & py::array::c_style) != 0 && (size < 0 || array.size() == size);
        if (fits) return static_cast<const T*>(array.data());
        const std::string wanted = py::str(py::dtype::of<T>()).cast<std::string>() + (size < 0 ? "" : " of size " + std::to_string(size));
        throw std::invalid_argument(std::string("the compiled encoder wants ") + name + " as " + wanted + ", one number behind the other, but " +
                                    py::str(array.dtype()).cast<std::string>() + " of size " + std::to_string(array.size()) + " came");
    }

    // A copy of the numbers called `name`, the same where an array comes twice; null where they are not there or None.
    template <class T>
    const T* numbers(const py::dict& told, const char* name, int64_t size) {
        if (!told.contains(name) || told[name].is_none()) return nullptr;
        const py::array array = told[name].cast<py::array>();
        const T* from = data<T>(array, size, name);
        if (size == 0) return from;
        const void*& copied = copied_[from];
        if (!copied) copied = copies_.keep(from, size * static_cast<int64_t>(sizeof(T)));
        return static_cast<const T*>(copied);
    }

    Norm norm(const py::dict& told) {
        const int64_t size = padded(encoder_.width);
        return {numbers<float>(told, "weight", size), numbers<float>(told, "bias", size)};
    }

    Matrix matrix(const py::dict& told) {
        Matrix to{};
        to.inputs = told["inputs"].cast<int64_t>(), to.outputs = told["outputs"].cast<int64_t>();
        const int64_t panels = in_panels(to.outputs), outputs = padded(to.outputs);
        to.floats = numbers<float>(told, "floats", panels * to.inputs * kEncoderPanel);
        if (to.floats) return to;
        to.first = numbers<int32_t>(told, "first", panels + 1);
        to.sums = numbers<int32_t>(told, "sums", outputs);
        to.scales = numbers<float>(told, "scales", outputs);
        to.diagonal = numbers<float>(told, "diagonal", to.inputs);
        to.bytes = numbers<int8_t>(told, "bytes", to.first[panels] * ((to.inputs + 15) / 16) * 256);
        return to;
    }

    // A weight that reads `inputs` numbers and gives `outputs`, or any number of them where that is negative.
    Linear linear(const py::dict& told, int64_t inputs, int64_t outputs) {
        Linear to{};
        for (const py::handle& one : told["chain"].cast<py::list>()) {
            to.chain.push_back(matrix(one.cast<py::dict>()));
            const Matrix& last = to.chain.back();
            if (last.inputs != inputs || last.inputs > kMostInputs) {
                throw std::invalid_argument("the compiled encoder wants a matrix of " + std::to_string(inputs) + " inputs, at most " +
                                            std::to_string(kMostInputs) + ", where one of " + std::to_string(last.inputs) + " stands");
            }
            inputs = last.outputs;
        }
        if (to.chain.empty() || (outputs >= 0 && inputs != outputs)) {
            throw std::invalid_argument("the compiled encoder wants a weight of " + std::to_string(outputs) + " outputs, where one of " +
                                        std::to_string(inputs) + " stands");
        }
        to.bias = numbers<float>(told, "bias", padded(to.outputs()));
        return to;
    }

    EncoderLayer layer_of(const py::dict& told) {
        EncoderLayer to{};
        to.heads = told["heads"].cast<int64_t>(), to.head_width = told["head_width"].cast<int64_t>();
        const int64_t width = encoder_.width, panels = to.heads * padded(to.head_width);
        to.query = linear(told["query"].cast<py::dict>(), width, panels);
        to.key = linear(told["key"].cast<py::dict>(), width, panels);
        to.value = linear(told["value"].cast<py::dict>(), width, panels);
        to.output = linear(told["output"].cast<py::dict>(), to.heads * to.head_width, width);
        to.up = linear(told["up"].cast<py::dict>(), width, -1);
        to.down = linear(told["down"].cast<py::dict>(), to.up.outputs(), width);
        to.attention_norm = norm(told["attention_norm"].cast<py::dict>());
        to.output_norm = norm(told["output_norm"].cast<py::dict>());
        return to;
    }

    Encoder encoder_{};
    Copies copies_;
    std::map<const void*, const void*> copied_;  // while it is made: where an array's copy lies
};

}  // namespace

void bind_encoder(py::module_& module) {
    py::class_<BoundEncoder>(module, "Encoder", "A whole encoder, run on ragged batches by compress_rec.runtime.")
        .def(py::init<const py::dict&>(), py::arg("description"))
        .def("run", &BoundEncoder::run, py::arg("ids"), py::arg("offsets"), py::arg("heads"), py::arg("outputs"),
             "Write the vectors of every text through each head to its output (texts, dimensions); other threads run meanwhile.")
        .def("profile", &BoundEncoder::profile, py::arg("ids"), py::arg("offsets"),
             "Encode up to the pooling on one thread, and return the nanoseconds of every step.");
}

}  // namespace compress_rec
