// The engine OpenCV DNN for the bench (bench/speed says how engines are talked to), as Debian
// builds it. Usage: engine-opencv MODEL THREADS INPUT DIM,DIM,...
#include <chrono>
#include <cstdio>
#include <fstream>
#include <iostream>
#include <iterator>
#include <sstream>
#include <string>
#include <vector>

#include <opencv2/core.hpp>
#include <opencv2/core/utility.hpp>
#include <opencv2/dnn.hpp>

namespace {

long status_kb(const std::string &field) {
    std::ifstream file("/proc/self/status");
    for (std::string line; std::getline(file, line);)
        if (line.rfind(field + ":", 0) == 0)
            return std::stol(line.substr(field.size() + 1));
    return 0;
}

std::vector<float> read_numbers(const char *path) {
    std::ifstream file(path, std::ios::binary);
    std::vector<char> bytes((std::istreambuf_iterator<char>(file)),
                            std::istreambuf_iterator<char>());
    const float *numbers = reinterpret_cast<const float *>(bytes.data());
    return {numbers, numbers + bytes.size() / sizeof(float)};
}

class Engine {
  public:
    Engine(const char *model, int threads, const char *input, const std::vector<int> &shape)
        : numbers(read_numbers(input)), blob(shape, CV_32F, numbers.data()) {
        cv::setNumThreads(threads);
        net = cv::dnn::readNetFromONNX(model);
        net.setPreferableBackend(cv::dnn::DNN_BACKEND_OPENCV);
        net.setPreferableTarget(cv::dnn::DNN_TARGET_CPU);
        names = net.getUnconnectedOutLayersNames();
        forward();
    }

    void forward() {
        net.setInput(blob);
        net.forward(outputs, names);
    }

    void run(int frames) {
        std::ostringstream answer;
        for (int i = 0; i < frames; i++) {
            auto start = std::chrono::steady_clock::now();
            forward();
            auto ns = std::chrono::steady_clock::now() - start;
            answer << (i ? "," : "") << std::chrono::nanoseconds(ns).count();
        }
        std::cout << "{\"ns\":[" << answer.str() << "]}" << std::endl;
    }

    void save(const std::string &path) {
        std::cout << "{\"files\":[";
        for (size_t i = 0; i < outputs.size(); i++) {
            std::string name = path + "." + std::to_string(i);
            cv::Mat dense = outputs[i].isContinuous() ? outputs[i] : outputs[i].clone();
            std::ofstream(name, std::ios::binary)
                .write(reinterpret_cast<const char *>(dense.data),
                       static_cast<std::streamsize>(dense.total() * dense.elemSize()));
            std::cout << (i ? "," : "") << '"' << name << '"';
        }
        std::cout << "]}" << std::endl;
    }

  private:
    std::vector<float> numbers;
    cv::Mat blob;
    cv::dnn::Net net;
    std::vector<cv::String> names;
    std::vector<cv::Mat> outputs;
};

std::string quoted(const std::string &text) {
    std::string out;
    for (char c : text)
        out += c == '"' || c == '\\' ? '\'' : static_cast<unsigned char>(c) < ' ' ? ' ' : c;
    return '"' + out + '"';
}

} // namespace

int main(int argc, char **argv) {
    if (argc != 5) {
        std::fprintf(stderr, "usage: %s MODEL THREADS INPUT DIM,DIM,...\n", argv[0]);
        return 2;
    }
    try {
        std::vector<int> shape;
        std::istringstream dims(argv[4]);
        for (std::string dim; std::getline(dims, dim, ',');)
            shape.push_back(std::stoi(dim));
        Engine engine(argv[1], std::stoi(argv[2]), argv[3], shape);
        std::cout << "{\"engine\":\"OpenCV DNN\",\"version\":\"" << cv::getVersionString()
                  << "\",\"base_kb\":0}" << std::endl;
        for (std::string line; std::getline(std::cin, line);) {
            std::istringstream words(line);
            std::string command, argument;
            words >> command >> argument;
            if (command == "run")
                engine.run(std::stoi(argument));
            else if (command == "save")
                engine.save(argument);
            else if (command == "memory")
                std::cout << "{\"peak_kb\":" << status_kb("VmHWM") << "}" << std::endl;
        }
    } catch (const std::exception &error) {
        std::cout << "{\"error\":" << quoted(error.what()) << "}" << std::endl;
        return 1;
    }
    return 0;
}
