// Runs an encoder over the texts of a call: in chunks, so that the memory it takes does not grow with them, and each step in blocks, which
// torch's threads share. The steps are in cpu/.
#include "encoder.h"

#include <torch/csrc/stable/ops.h>

#include <algorithm>
#include <stdexcept>
#include <string>

#include "encoder_run.h"
#include "large_memory.h"

namespace compress_rec {

namespace {

#include "cpu/room.h"

constexpr int64_t kTokensInChunk = 384;  // a thread: what stands between the steps, 8 kB a token of MiniLM, stays in a near cache
constexpr int64_t kTokensInBlock = 48;    // a multiple of six: the block's neurons stay in a 512 KB L2
constexpr int64_t kFewTokens = 12;        // fewer are not worth a thread of their own

[[noreturn]] void refuse_ids(const std::string& sentence) {
    throw std::invalid_argument("encode_ids: " + sentence);
}

// A step's tokens in blocks that are nearly alike, shared by the threads.
template <class Step>
void in_blocks(int64_t count, int64_t threads, Step step) {
    const int64_t most = std::min(kTokensInBlock, std::max(kFewTokens, (count + threads - 1) / threads));
    const int64_t blocks = (count + most - 1) / most, size = ((count + blocks - 1) / blocks + 5) / 6 * 6;
    const int64_t cut = (count + size - 1) / size;
    const auto run = [&](int64_t first, int64_t last) {
        for (int64_t block = first; block < last; ++block) step(block * size, std::min(count, (block + 1) * size));
    };
    if (threads == 1 || cut == 1) return run(0, cut);
    torch::stable::parallel_for(0, cut, 1, run);
}

void run_chunk(EncoderWork& work, const std::vector<EncoderOutput>& outputs, int64_t first_text) {
    const Encoder& encoder = *work.encoder;
    const int64_t threads = work.nanoseconds ? 1 : torch::stable::get_num_threads();
    if (encoder.layers.empty()) {
        in_blocks(work.tokens, threads, [&](int64_t first, int64_t last) { embed_avx2(work, first, last); });
    }
    for (size_t number = 0; number < encoder.layers.size(); ++number) {
        const EncoderLayer& layer = encoder.layers[number];
        in_blocks(work.tokens, threads, [&](int64_t first, int64_t last) {
            // the block is still in the cache
            if (number == 0) embed_avx2(work, first, last);
            if (number > 0) finish_avx2(work, encoder.layers[number - 1], first, last);
            if (layer.heads) project_avx2(work, layer, first, last);
        });
        const int64_t inner = layer.heads * layer.head_width, stride = padded(inner);
        if (inner != stride)
            for (int64_t token = 0; token < work.tokens; ++token)
                std::fill(work.context + token * stride + inner, work.context + (token + 1) * stride, 0.0f);
        const StepTime time(work, EncoderStep::attention);
        const auto attend = [&](int64_t first, int64_t last) {
            for (int64_t one = first; one < last; ++one) attend_avx2(work, layer, one / layer.heads, one % layer.heads);
        };
        const int64_t all = work.texts * layer.heads;
        if (threads == 1 || work.tokens < 2 * kFewTokens) {
            attend(0, all);
        } else {
            torch::stable::parallel_for(0, all, (all + threads - 1) / threads, attend);
        }
    }
    if (!encoder.layers.empty()) {
        in_blocks(work.tokens, threads, [&](int64_t first, int64_t last) { finish_avx2(work, encoder.layers.back(), first, last); });
    }
    const StepTime time(work, EncoderStep::pooling);
    in_blocks(work.texts, threads, [&](int64_t first, int64_t last) {
        pool_avx2(work, first, last);
        for (const EncoderOutput& output : outputs) {
            float* to = output.to + first_text * output.dimensions;
            if (output.head >= 0) {
                head_avx2(work, encoder.heads[static_cast<size_t>(output.head)], output.dimensions, to, first, last);
            } else {
                const int64_t stride = padded(encoder.width);
                for (int64_t text = first; text < last; ++text)
                    std::copy_n(work.pooled + text * stride, output.dimensions, to + text * output.dimensions);
            }
        }
    });
}

void check(const Encoder& encoder, const int64_t* ids, int64_t tokens, const int64_t* offsets, int64_t texts) {
    if (offsets[0] != 0) refuse_ids("offsets must begin with 0, but " + std::to_string(offsets[0]) + " came; give where each text begins");
    for (int64_t text = 0; text < texts; ++text) {
        if (offsets[text + 1] < offsets[text]) {
            refuse_ids("offsets must ascend, but " + std::to_string(offsets[text + 1]) + " came behind " + std::to_string(offsets[text]) +
                       "; give where each text begins, and the end of the last");
        }
    }
    for (int64_t text = 0; text < texts; ++text) {
        const int64_t length = offsets[text + 1] - offsets[text];  // both lie between 0 and the last
        if (length == 0) {
            refuse_ids("text " + std::to_string(text) + " must have a token, but it is empty; the tokenizer writes two for an empty text");
        }
        if (encoder.most_tokens && length > encoder.most_tokens) {
            refuse_ids("text " + std::to_string(text) + " must have at most " + std::to_string(encoder.most_tokens) +
                       " tokens, as many as the encoder has positions, but " + std::to_string(length) + " came; cut it");
        }
    }
    if (offsets[texts] != tokens) {
        refuse_ids("offsets must end with the number of ids, " + std::to_string(tokens) + ", but " + std::to_string(offsets[texts]) +
                   " came; give the end of the last text");
    }
    for (int64_t token = 0; token < tokens; ++token) {
        if (ids[token] < 0 || ids[token] >= encoder.vocabulary) {
            refuse_ids("ids must be from 0 to " + std::to_string(encoder.vocabulary - 1) + ", but " + std::to_string(ids[token]) +
                       " came at place " + std::to_string(token) + "; use the model's own tokenizer");
        }
    }
}

// Of the thread that calls: kept, since memory that is new at every call is slow.
struct Memory {
    Room<float> hidden, query, key, value, context, pooled;
    Room<int64_t> offsets;
    Room<int32_t> place;
};

}  // namespace

void run_encoder(const Encoder& encoder, const int64_t* ids, int64_t tokens, const int64_t* offsets, int64_t texts,
                 const std::vector<EncoderOutput>& outputs, int64_t* nanoseconds) {
    check(encoder, ids, tokens, offsets, texts);
    int64_t heads = 0, inner = 0;  // of the widest layer, padded
    for (const EncoderLayer& layer : encoder.layers) {
        heads = std::max(heads, layer.heads * padded(layer.head_width));
        inner = std::max(inner, padded(layer.heads * layer.head_width));
    }
    const int64_t most = kTokensInChunk * (nanoseconds ? 1 : torch::stable::get_num_threads());
    thread_local Memory memory;
    for (int64_t text = 0; text < texts;) {
        int64_t last = text + 1;
        while (last < texts && offsets[last + 1] - offsets[text] <= most) ++last;
        const int64_t begin = offsets[text];
        EncoderWork work{};
        work.nanoseconds = nanoseconds;
        work.encoder = &encoder, work.ids = ids + begin, work.texts = last - text, work.tokens = offsets[last] - begin;
        int64_t* places = memory.offsets.at_least(work.texts + 1);
        int32_t* place = memory.place.at_least(work.tokens);
        for (int64_t one = 0; one <= work.texts; ++one) places[one] = offsets[text + one] - begin;
        for (int64_t one = 0; one < work.texts; ++one)
            for (int64_t token = places[one]; token < places[one + 1]; ++token) place[token] = static_cast<int32_t>(token - places[one]);
        work.offsets = places, work.place = place;
        work.hidden = memory.hidden.at_least(work.tokens * padded(encoder.width));
        work.query = memory.query.at_least(work.tokens * heads);
        work.key = memory.key.at_least(work.tokens * heads);
        work.value = memory.value.at_least(work.tokens * heads);
        work.context = memory.context.at_least(work.tokens * inner);
        work.pooled = memory.pooled.at_least(work.texts * padded(encoder.width));
        run_chunk(work, outputs, text);
        text = last;
    }
}

}  // namespace compress_rec
